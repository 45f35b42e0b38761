//! What a status is made of.

use grpcio::RpcStatusCode;

use super::Bounds;
use crate::security::acl::Action;
use crate::types::Offset;

/// What a status says of an error.
pub(super) struct Facts {
    pub(super) code: RpcStatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) metadata: Vec<(&'static str, String)>,
    pub(super) retry: bool,
    pub(super) localized: Option<String>,
}

impl Facts {
    pub(super) fn new(code: RpcStatusCode, reason: &'static str, message: impl Into<String>) -> Facts {
        Facts { code, reason, message: message.into(), metadata: Vec::new(), retry: false, localized: None }
    }

    pub(super) fn with(mut self, key: &'static str, value: impl ToString) -> Facts {
        self.metadata.push((key, value.to_string()));
        self
    }

    pub(super) fn limit(self, name: &str, max: impl ToString) -> Facts {
        self.with("limit", name).with("max", max)
    }

    pub(super) fn retry(self) -> Facts {
        Facts { retry: true, ..self }
    }

    pub(super) fn bounds(self, bounds: &Bounds, offset: Offset) -> Facts {
        let facts = self
            .with("log", &bounds.log)
            .with("log_id", bounds.log_id)
            .with("first_offset", bounds.first_offset)
            .with("next_offset", bounds.next_offset);
        // What clients of the first server of this API show to people.
        Facts { localized: Some(format!("The requested offset is outside the log's range: {offset}")), ..facts }
    }
}

/// What an action is called in "may not ... the log".
pub(super) fn verb(action: Action) -> &'static str {
    match action {
        Action::Produce => "produce to",
        Action::Consume => "consume",
        Action::Admin => "administer",
        Action::Replicate => "replicate",
    }
}
