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
    /// `seriatim.v1`. A request with something unknown in it is refused.
    SeriatimV1,
    /// gRPC's own services, whose clients know nothing of Seriatim. What is unknown is ignored.
    Grpc,
}

impl Package {
    /// Returns the package of a method, `/package.Service/Method`.
    pub fn of(method: &str) -> Package {
        match method {
            _ if method.starts_with("/log.v1.") => Package::LogV1,
            _ if method.starts_with("/seriatim.v1.") => Package::SeriatimV1,
            _ => Package::Grpc,
        }
    }

    /// The name of the limit of a record.
    pub fn max_record_bytes(self) -> &'static str {
        match self {
            Package::LogV1 => "record_bytes_max",
            Package::SeriatimV1 | Package::Grpc => "max_record_bytes",
        }
    }

    /// The name of the limit of a request.
    pub fn max_request_bytes(self) -> &'static str {
        match self {
            Package::LogV1 => "request_bytes_max",
            Package::SeriatimV1 | Package::Grpc => "max_request_bytes",
        }
    }
}
