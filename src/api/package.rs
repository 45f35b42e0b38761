//! The two packages in which the API is offered, with the same handlers, and the services that are gRPC's own.

/// The service of the health checks.
pub const HEALTH: &str = "grpc.health.v1.Health";
/// The services of server reflection.
pub const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The package of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// `log.v1`, for clients of proglog. It does not change any more, and ignores what it does not know, as proto3 does.
    LogV1,
    /// `seriatim.v1`, which refuses a request with something unknown in it; and gRPC's own services, which decode for themselves.
    SeriatimV1,
}

impl Package {
    /// Returns the package of a method, `/package.Service/Method`.
    pub fn of(method: &str) -> Package {
        if method.starts_with("/log.v1.") { Package::LogV1 } else { Package::SeriatimV1 }
    }

    /// The name of the limit of a record.
    pub fn max_record_bytes(self) -> &'static str {
        match self {
            Package::LogV1 => "record_bytes_max",
            Package::SeriatimV1 => "max_record_bytes",
        }
    }

    /// The name of the limit of a request.
    pub fn max_request_bytes(self) -> &'static str {
        match self {
            Package::LogV1 => "request_bytes_max",
            Package::SeriatimV1 => "max_request_bytes",
        }
    }
}
