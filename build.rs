//! Generates messages and gRPC services from `proto/`, in pure Rust: no `protoc` is needed.
//!
//! rust-protobuf 3 generates the messages. `grpcio-compiler` generates the services, but needs the descriptors of rust-protobuf 2:
//! the descriptors are serialized by version 3 and parsed by version 2. The same bytes are stored for server reflection.

use std::path::{Path, PathBuf};
use std::{env, fs};

use protobuf::Message as _;
use protobuf2::Message as _;

const PROTOS: &[&str] = &[
    "log/v1/log.proto",
    "seriatim/v1/errors.proto",
    "seriatim/v1/log_service.proto",
    "seriatim/v1/cluster_service.proto",
    "seriatim/peer/v1/peer.proto",
    "seriatim/catalog/v1/catalog.proto",
    "seriatim/logstate/v1/log_state.proto",
    "seriatim/backup/v1/backup.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
];

/// Files whose descriptors server reflection serves, but whose messages are those of another file.
const DESCRIPTORS_ONLY: &[&str] = &["grpc/reflection/v1alpha/reflection.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("pb");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    let include = Path::new("proto");
    let inputs: Vec<PathBuf> = PROTOS.iter().map(|p| include.join(p)).collect();

    protobuf_codegen::Codegen::new()
        .pure()
        .include(include)
        .inputs(&inputs)
        .customize(protobuf_codegen::Customize::default().tokio_bytes(true))
        .out_dir(&out)
        .run()?;

    let all = inputs.iter().cloned().chain(DESCRIPTORS_ONLY.iter().map(|p| include.join(p)));
    let parsed = protobuf_parse::Parser::new().pure().include(include).inputs(all).parse_and_typecheck()?;
    let mut set = protobuf::descriptor::FileDescriptorSet::new();
    set.file = parsed.file_descriptors;
    let bytes = set.write_to_bytes()?;
    fs::write(out.join("descriptors.bin"), &bytes)?;

    let old = protobuf2::descriptor::FileDescriptorSet::parse_from_bytes(&bytes)?;
    let names: Vec<String> = PROTOS.iter().map(|p| (*p).to_owned()).collect();
    let mut modules = fs::read_to_string(out.join("mod.rs"))?;
    for file in grpcio_compiler::codegen::r#gen(old.get_file(), &names) {
        fs::write(out.join(&file.name), with_checked_responses(&String::from_utf8(file.content)?))?;
        let module = file.name.trim_end_matches(".rs");
        modules.push_str(&format!("pub mod {module};\n"));
    }
    fs::write(out.join("mod.rs"), modules)?;
    Ok(())
}

/// Makes the generated clients use `src/pb/unary.rs`, which tells why.
fn with_checked_responses(code: &str) -> String {
    code.replace("::grpcio::ClientUnaryReceiver<", "crate::pb::unary::Response<")
        .replace("self.client.unary_call_async(", "crate::pb::unary::start(&self.client, ")
        .replace("self.client.unary_call(", "crate::pb::unary::call(&self.client, ")
}
