//! Generates code from the descriptors in `$DESCRIPTORS`, so that no `protoc` is needed.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-env-changed=DESCRIPTORS");
    let descriptors = std::env::var_os("DESCRIPTORS").expect("DESCRIPTORS: the path of the compiled protos");
    println!("cargo::rerun-if-changed={}", descriptors.display());
    prost_build::Config::new()
        .btree_map(["."])
        .file_descriptor_set_path(descriptors)
        .skip_protoc_run()
        .compile_protos(&["seriatim/v1/log_service.proto"], &["."])
}
