//! `InitProducer`, `GetProducer` and `ListProducers`: the producers of a log, whose retries are appended once.

use super::change::check_level;
use super::core::WantedLogId;
use super::error::{ApiError, Invalid};
use super::messages::{Request, decode};
use super::produce::find_or_create;
use super::relay::Relay;
use super::router::proposal_deadline;
use super::service::{Call, Service};
use super::state_change::{caught_up, change, check_owner, find};
use crate::feature_level::Feature;
use crate::log_state::producers::{InitProducer, Producer};
use crate::log_state::{StateCommand, StateRefusal};
use crate::logs::OpenLog;
use crate::pb::v1;
use crate::pb::v1::get_producer_request::Which;
use crate::replication::relay::RelayKind;
use crate::types::{ProducerId, ProducerName};

/// Serves `InitProducer`. Responds once this node has applied the registration.
///
/// # Errors
/// Those of [`super::status`].
pub async fn init_producer(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::InitProducerResponse, ApiError> {
    let message = request;
    let request: v1::InitProducerRequest = decode(&message, call.package)?;
    let name = call.log_name(&request.log)?;
    let producer = optional_name(&request.producer)?;
    if request.instance == 0 {
        return Err(Invalid::NoInstance.into());
    }
    check_owner(&request.owner)?;
    let core = service.core()?;
    let wanted = WantedLogId::of_text(request.log_id.as_deref());
    let found = find_or_create(&service, core, &call, &name, wanted != WantedLogId::Any).await?;
    wanted.check_id(&found.name, found.log_id)?;
    // Before it is relayed: an older node would not know the kind of request.
    check_level(&service, core, Feature::Producers, call.deadline).await?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::InitProducer, &message).await;
    };
    let deadline = proposal_deadline(call.deadline);
    let mut init = InitProducer {
        id: ProducerId(0),
        name: producer,
        instance: request.instance,
        expected_epoch: request.expected_epoch,
        owner: request.owner,
    };
    loop {
        init.id = ProducerId::random().map_err(|_| ApiError::Internal("the system returned no random number"))?;
        match change(&service, core, &call, &log, &StateCommand::InitProducer(init.clone()), deadline).await {
            // Another producer of the log has that random number.
            Err(ApiError::State { refusal: StateRefusal::ProducerIdTaken(_), .. }) => {}
            other => break other?,
        }
    }
    let tables = log.tables.get();
    let is_mine = |producer: &&Producer| producer.name == init.name && producer.instance == init.instance;
    let Some(producer) = tables.producers.iter().find(is_mine) else {
        // Another process has taken the name over in the meantime, or many others were registered.
        let epoch = init.name.as_ref().and_then(|name| tables.producers.named(name)).map_or(0, |other| other.epoch);
        let refusal = match epoch {
            0 => StateRefusal::ProducerUnknown(0),
            epoch => StateRefusal::ProducerFenced(epoch.into()),
        };
        return Err(ApiError::State { log: log.name.clone(), refusal });
    };
    let mut response = v1::InitProducerResponse::new();
    response.producer = Some(to_message(&log, producer)).into();
    Ok(response)
}

/// Serves `GetProducer`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_producer(service: Service, call: Call, request: Request) -> Result<v1::GetProducerResponse, ApiError> {
    let message = request;
    let request: v1::GetProducerRequest = decode(&message, call.package)?;
    let by_name = match &request.which {
        Some(Which::Producer(name)) => Some(producer_name(name)?),
        Some(Which::ProducerId(_)) => None,
        None => return Err(Invalid::NoProducer.into()),
    };
    let found = find(&service, &call, &request.log, None).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::GetProducer, &message).await;
    };
    caught_up(&service, core, &call, &log).await?;
    let tables = log.tables.get();
    let producer = match (&by_name, &request.which) {
        (Some(name), _) => tables.producers.named(name),
        (None, Some(Which::ProducerId(id))) => tables.producers.get(ProducerId(*id)),
        (None, _) => None,
    };
    let producer = producer.ok_or_else(|| ApiError::NoSuchProducer { log: log.name.clone() })?;
    let mut response = v1::GetProducerResponse::new();
    response.producer = Some(to_message(&log, producer)).into();
    Ok(response)
}

/// Serves `ListProducers`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn list_producers(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::ListProducersResponse, ApiError> {
    let message = request;
    let request: v1::ListProducersRequest = decode(&message, call.package)?;
    let found = find(&service, &call, &request.log, None).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::ListProducers, &message).await;
    };
    caught_up(&service, core, &call, &log).await?;
    let tables = log.tables.get();
    let mut producers: Vec<&Producer> = tables.producers.iter().collect();
    producers.sort_by_key(|producer| (producer.name.is_none(), &producer.name, producer.id));
    let mut response = v1::ListProducersResponse::new();
    response.producers = producers.into_iter().map(|producer| to_message(&log, producer)).collect();
    Ok(response)
}

fn optional_name(name: &str) -> Result<Option<ProducerName>, Invalid> {
    if name.is_empty() { Ok(None) } else { producer_name(name).map(Some) }
}

fn producer_name(name: &str) -> Result<ProducerName, Invalid> {
    ProducerName::new(name).map_err(|bad| Invalid::Name { field: "producer", bad })
}

fn to_message(log: &OpenLog, producer: &Producer) -> v1::Producer {
    let last = producer.last_answer();
    v1::Producer {
        log: log.name.to_string(),
        log_id: log.log_id.to_string(),
        producer: producer.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        producer_id: producer.id.0,
        epoch: producer.epoch,
        last_sequence: producer.last_sequence,
        last_offset: last.map_or(0, |last| last.offset.0 + u64::from(last.count.saturating_sub(1))),
        last_append_time_us: last.map_or(0, |last| last.append_time_us),
        owner: producer.owner.clone(),
        records: producer.records,
        ..v1::Producer::default()
    }
}
