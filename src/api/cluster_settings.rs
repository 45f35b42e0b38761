//! `UpdateCluster`: changes the settings of the cluster, by a command of the catalog.

use super::change::{Step, change, check_level};
use super::core::Core;
use super::error::{ApiError, Invalid};
use super::log_settings::{
    HASH_CHAIN_IS_FIXED, Place, changed, check, check_nodes, config, duration_of_ms, ms_of_duration,
};
use super::logs::{check_done, check_revision};
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Catalog, ClusterSettings, Command, LogSettings};
use crate::feature_level::Feature;
use crate::pb::v1;
use crate::types::GroupId;

/// Serves `UpdateCluster`. Responds once the change is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn update_cluster(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::UpdateClusterResponse, ApiError> {
    let request: v1::UpdateClusterRequest = decode(&request, call.package)?;
    // Also refuses a bad request that changes nothing.
    wanted(&ClusterSettings::default(), &request)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    let sets_replace = request.settings.get_or_default().auto_replace_wiped.is_some();
    let feature = if sets_replace { Feature::Membership } else { Feature::ManyLogs };
    check_level(&service, core, feature, Some(deadline)).await?;
    let mut response = v1::UpdateClusterResponse::new();
    if request.validate_only {
        core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
        let catalog = core.catalog.get();
        decide(&catalog, &request)?;
        let settings = wanted(catalog.cluster_settings(), &request)?;
        response.cluster = Some(v1::Cluster { settings: Some(message(&settings)).into(), ..cluster(core) }).into();
        return Ok(response);
    }
    change(&service, core, &call, deadline, |catalog| decide(catalog, &request)).await?;
    response.cluster = Some(cluster(core)).into();
    Ok(response)
}

/// Returns the cluster as a message.
pub fn cluster(core: &Core) -> v1::Cluster {
    let catalog = core.catalog.get();
    v1::Cluster {
        name: core.me.cluster_name.clone(),
        cluster_id: core.cluster_id.to_string(),
        feature_level: catalog.feature_level().0,
        settings: Some(message(catalog.cluster_settings())).into(),
        revision: catalog.settings_revision(),
        ..v1::Cluster::default()
    }
}

/// Returns the settings that apply as a message.
fn message(settings: &ClusterSettings) -> v1::ClusterSettings {
    v1::ClusterSettings {
        log_defaults: Some(config(&LogSettings::default(), &settings.log_defaults)).into(),
        create_on_append: Some(settings.create_on_append),
        deleted_log_retention: duration_of_ms(settings.deleted_log_retention_ms()),
        auto_replace_wiped: Some(settings.auto_replace_wiped),
        ..v1::ClusterSettings::default()
    }
}

fn decide(catalog: &Catalog, request: &v1::UpdateClusterRequest) -> Result<Step<()>, ApiError> {
    let (present, revision) = (catalog.cluster_settings(), catalog.settings_revision());
    let settings = wanted(present, request)?;
    if settings == *present {
        check_done(None, revision, request.expected_revision)?;
        return Ok(Step::Done(()));
    }
    check_revision(None, revision, request.expected_revision)?;
    let defaults = &settings.log_defaults;
    check(&LogSettings::default(), defaults, Place::LOG_DEFAULTS)?;
    check_nodes(defaults, catalog.members().count(), Place::LOG_DEFAULTS)?;
    Ok(Step::propose(Command::UpdateCluster(settings, revision)))
}

/// Returns the settings after a change: the fields in `update_mask`, or without a mask those that are set. A field in
/// the mask that is not set gets its default.
fn wanted(present: &ClusterSettings, request: &v1::UpdateClusterRequest) -> Result<ClusterSettings, Invalid> {
    let new = request.settings.get_or_default();
    let retention = new.deleted_log_retention.as_ref().map(|retention| {
        ms_of_duration(retention).ok_or_else(|| Invalid::Settings {
            field: "settings.deleted_log_retention".to_owned(),
            what: "`deleted_log_retention` must be a duration from 0 to 10,000 years in whole milliseconds".to_owned(),
        })
    });
    let retention_ms = retention.transpose()?;
    let log_defaults = new.log_defaults.get_or_default();
    if !log_defaults.labels.is_empty() {
        return Err(Invalid::Settings {
            field: "settings.log_defaults.labels".to_owned(),
            what: "`labels` have no default: each log has its own".to_owned(),
        });
    }
    if log_defaults.hash_chain == Some(true) {
        return Err(Place::LOG_DEFAULTS.invalid("hash_chain", HASH_CHAIN_IS_FIXED));
    }
    let mut settings = present.clone();
    if request.update_mask.paths.is_empty() {
        settings.log_defaults = changed(&present.log_defaults, log_defaults, &[], Place::LOG_DEFAULTS)?;
        settings.create_on_append = new.create_on_append.unwrap_or(present.create_on_append);
        settings.deleted_log_retention_ms = retention_ms.or(present.deleted_log_retention_ms);
        settings.auto_replace_wiped = new.auto_replace_wiped.unwrap_or(present.auto_replace_wiped);
        return Ok(settings);
    }
    for path in &request.update_mask.paths {
        match path.as_str() {
            "log_defaults" => {
                settings.log_defaults = changed(&LogSettings::default(), log_defaults, &[], Place::LOG_DEFAULTS)?;
            }
            "create_on_append" => settings.create_on_append = new.create_on_append.unwrap_or_default(),
            "deleted_log_retention" => settings.deleted_log_retention_ms = retention_ms,
            "auto_replace_wiped" => settings.auto_replace_wiped = new.auto_replace_wiped.unwrap_or_default(),
            other => {
                let of_logs = other.strip_prefix("log_defaults.").filter(|path| !path.starts_with("labels"));
                let Some(of_logs) = of_logs else { return Err(Invalid::UpdateMask(other.to_owned())) };
                settings.log_defaults = changed(&settings.log_defaults, log_defaults, &[of_logs], Place::LOG_DEFAULTS)
                    .map_err(|invalid| match invalid {
                        Invalid::UpdateMask(_) => Invalid::UpdateMask(other.to_owned()),
                        invalid => invalid,
                    })?;
            }
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;
    use protobuf::well_known_types::field_mask::FieldMask;

    use super::*;

    #[test]
    fn a_mask_resets_settings_and_defaults_of_logs() {
        let present = ClusterSettings {
            log_defaults: LogSettings { replicas: Some(5), retention_ms: Some(1000), ..LogSettings::default() },
            create_on_append: true,
            deleted_log_retention_ms: Some(0),
            auto_replace_wiped: true,
        };
        let config = v1::LogConfig { min_retained_bytes: Some(7), ..v1::LogConfig::default() };
        let new = v1::ClusterSettings { log_defaults: MessageField::some(config), ..v1::ClusterSettings::default() };
        let change = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let request = v1::UpdateClusterRequest {
                settings: MessageField::some(new.clone()),
                update_mask: MessageField::some(FieldMask { paths, ..FieldMask::default() }),
                ..v1::UpdateClusterRequest::default()
            };
            wanted(&present, &request)
        };
        let with = |log_defaults| ClusterSettings { log_defaults, ..present.clone() };
        let bytes = LogSettings { retention_bytes: Some(7), ..LogSettings::default() };
        let kept = LogSettings { retention_bytes: Some(7), ..present.log_defaults.clone() };
        assert_eq!(change(&[]), Ok(with(kept)));
        assert_eq!(change(&["log_defaults"]), Ok(with(bytes)));
        let reset = LogSettings { retention_ms: None, ..present.log_defaults.clone() };
        assert_eq!(change(&["log_defaults.retention_age"]), Ok(with(reset)));
        let off = ClusterSettings { log_defaults: present.log_defaults.clone(), ..ClusterSettings::default() };
        assert_eq!(change(&["create_on_append", "deleted_log_retention", "auto_replace_wiped"]), Ok(off));
        for bad in ["x", "log_defaults.x", "log_defaults.labels", "log_defaults.labels.a", ""] {
            assert_eq!(change(&[bad]), Err(Invalid::UpdateMask(bad.to_owned())), "{bad}");
        }
    }
}
