//! The driver of the conformance test of the client libraries: executes commands of `clients/conformance`.
//!
//! Reads one JSON object per line from standard input, and writes one per line to standard output. Commands that wait have
//! threads of their own.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use seriatim::client::{
    AckHandle, ClientFiles, Cluster, ClusterOptions, Consumer, ConsumerOptions, Error, Producer, ProducerOptions,
    Record, StartAt,
};

/// Everything that a driver has opened.
#[derive(Default)]
struct Driver {
    cluster: Option<Cluster>,
    producers: HashMap<String, Arc<SharedProducer>>,
    consumers: HashMap<String, Arc<SharedConsumer>>,
}

type Reply = Box<dyn FnOnce() + Send>;
type Act = Box<dyn FnOnce(&Producer) + Send>;

struct SharedProducer {
    producer: Producer,
    /// Sends the records of one producer in the order of the commands, while the buffer is full.
    sends: crossbeam_channel::Sender<Act>,
    /// Waits for acknowledgements, in the order of the commands.
    answers: crossbeam_channel::Sender<Reply>,
}

struct SharedConsumer {
    consumer: Consumer,
    /// Of the last `next`.
    skipped: Mutex<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    attempt_ms: Option<u64>,
    operation_ms: Option<u64>,
    connect_ms: Option<u64>,
    backoff_min_ms: Option<u64>,
    backoff_max_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Connect {
        addrs: Vec<String>,
        tls: Option<Tls>,
        #[serde(default)]
        options: Options,
    },
    Ready {
        timeout_ms: u64,
    },
    Producer {
        producer: String,
        log: String,
        name: Option<String>,
        batch_records: Option<usize>,
        batch_bytes: Option<usize>,
        buffer_bytes: Option<usize>,
        delivery_ms: Option<u64>,
    },
    Send {
        producer: String,
        value: String,
        key: Option<String>,
        #[serde(default)]
        headers: Vec<(String, String)>,
        #[serde(default, rename = "type")]
        record_type: u32,
    },
    SendMany {
        producer: String,
        prefix: String,
        count: u64,
    },
    Flush {
        producer: String,
        timeout_ms: u64,
    },
    CloseProducer {
        producer: String,
        timeout_ms: u64,
    },
    Consumer {
        consumer: String,
        log: String,
        start: String,
        offset: Option<u64>,
        time_us: Option<u64>,
        cursor: Option<String>,
        #[serde(default)]
        skip_trimmed: bool,
        auto_commit_ms: Option<u64>,
        heartbeat_ms: Option<u64>,
        max_silence_ms: Option<u64>,
    },
    Next {
        consumer: String,
        max: usize,
        timeout_ms: u64,
    },
    Commit {
        consumer: String,
    },
    CloseConsumer {
        consumer: String,
    },
    GetCursor {
        log: String,
        cursor: String,
    },
    Close {},
}

type Answer = Result<Value, Value>;

static OUTPUT: LazyLock<Mutex<std::io::Stdout>> = LazyLock::new(|| Mutex::new(std::io::stdout()));

fn main() {
    let mut driver = Driver::default();
    for line in std::io::stdin().lock().lines() {
        let mut command: Value = serde_json::from_str(&line.expect("a line")).expect("a JSON object");
        let id = command.as_object_mut().and_then(|fields| fields.remove("id")).expect("a number");
        match serde_json::from_value(command) {
            Ok(command) => driver.execute(id, command),
            Err(error) => answer(&id, Err(invalid(&error.to_string()))),
        }
    }
    driver.close();
}

fn answer(id: &Value, result: Answer) {
    let mut answer = result.unwrap_or_else(|error| json!({ "error": error }));
    answer["id"] = id.clone();
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(output, "{answer}").and_then(|()| output.flush()).expect("standard output");
}

/// Answers from a thread of its own.
fn later(id: Value, act: impl FnOnce() -> Answer + Send + 'static) {
    std::thread::spawn(move || answer(&id, act()));
}

fn described(error: &Error) -> Value {
    let code = error.code().to_string();
    json!({
        "kind": error.kind().code(),
        "code": code.split_once('-').map_or(code.as_str(), |(_, name)| name),
        "reason": error.reason(),
        "outcome": error.outcome().code(),
        "retry": error.retry().code(),
        "message": error.message(),
        "metadata": error.metadata(),
    })
}

fn invalid(text: &str) -> Value {
    json!({
        "kind": "invalid", "code": "INVALID_ARGUMENT", "reason": "", "outcome": "none", "retry": "no",
        "message": format!("the driver: {text}"), "metadata": {},
    })
}

fn nothing(result: Result<(), Error>) -> Answer {
    result.map(|()| json!({})).map_err(|error| described(&error))
}

/// Returns the bytes of a text in Latin-1.
fn bytes(text: &str) -> Result<Vec<u8>, Value> {
    let byte = |c| u8::try_from(u32::from(c)).map_err(|_| invalid(&format!("{c:?} is not Latin-1")));
    text.chars().map(byte).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

impl Driver {
    fn execute(&mut self, id: Value, command: Command) {
        if let Err(error) = self.start(&id, command) {
            answer(&id, Err(error));
        }
    }

    /// Starts a command, which is answered here or later. An error is the answer.
    fn start(&mut self, id: &Value, command: Command) -> Result<(), Value> {
        match command {
            Command::Connect { addrs, tls, options } => {
                self.close();
                let files = tls.map(|tls| ClientFiles { ca_file: tls.ca, cert_file: tls.cert, key_file: tls.key });
                let defaults = ClusterOptions::default();
                let or = |number: Option<u64>, default| number.map_or(default, ms);
                let cluster = Cluster::new(ClusterOptions {
                    addrs,
                    files,
                    attempt_timeout: or(options.attempt_ms, defaults.attempt_timeout),
                    operation_timeout: or(options.operation_ms, defaults.operation_timeout),
                    connect_timeout: or(options.connect_ms, defaults.connect_timeout),
                    backoff_min: or(options.backoff_min_ms, defaults.backoff_min),
                    backoff_max: or(options.backoff_max_ms, defaults.backoff_max),
                });
                self.cluster = Some(cluster.map_err(|error| described(&error))?);
                answer(id, Ok(json!({})));
            }
            Command::Ready { timeout_ms } => {
                let cluster = self.cluster()?;
                later(id.clone(), move || nothing(cluster.ready(ms(timeout_ms))));
            }
            Command::Producer { producer, log, name, batch_records, batch_bytes, buffer_bytes, delivery_ms } => {
                let defaults = ProducerOptions::new(log);
                let opened = self.cluster()?.producer(&ProducerOptions {
                    name,
                    batch_records: batch_records.unwrap_or(defaults.batch_records),
                    batch_bytes: batch_bytes.unwrap_or(defaults.batch_bytes),
                    buffer_bytes: buffer_bytes.unwrap_or(defaults.buffer_bytes),
                    delivery_timeout: delivery_ms.map_or(defaults.delivery_timeout, ms),
                    ..defaults
                });
                let opened = opened.map_err(|error| described(&error))?;
                let progress = opened.progress();
                self.producers.insert(producer, SharedProducer::start(opened));
                let answered = json!({
                    "last_sequence": progress.last_sequence,
                    "last_offset": progress.last_offset,
                    "records": progress.records,
                });
                answer(id, Ok(answered));
            }
            Command::Send { producer, value, key, headers, record_type } => {
                let headers = headers.iter().map(|(name, value)| Ok((name.clone(), bytes(value)?.into())));
                let record = Record {
                    value: bytes(&value)?.into(),
                    key: key.as_deref().map(bytes).transpose()?.map(Into::into),
                    headers: headers.collect::<Result<_, Value>>()?,
                    record_type,
                    event_time: None,
                };
                self.producer(&producer)?.send(id.clone(), record);
            }
            Command::SendMany { producer, prefix, count } => {
                let prefix = bytes(&prefix)?;
                let record = move |n: u64| Record::new([prefix.as_slice(), n.to_string().as_bytes()].concat());
                self.producer(&producer)?.send_many(id.clone(), count, record);
            }
            Command::Flush { producer, timeout_ms } => {
                let shared = self.producer(&producer)?;
                // After the sends before it.
                let id = id.clone();
                let flushed = shared.clone();
                shared.queue(move |_| later(id, move || nothing(flushed.producer.flush(ms(timeout_ms)))));
            }
            Command::CloseProducer { producer, timeout_ms } => {
                let shared = self.producer(&producer)?;
                let until = Instant::now() + ms(timeout_ms);
                // After the sends before it, and before the sends after it; but a send may wait for room.
                let (ended, has_ended) = crossbeam_channel::bounded::<()>(1);
                shared.queue(move |producer| {
                    producer.end();
                    let _ = ended.send(());
                });
                later(id.clone(), move || {
                    let _ = has_ended.recv_deadline(until);
                    nothing(shared.producer.close(until.saturating_duration_since(Instant::now())))
                });
            }
            Command::Consumer {
                consumer,
                log,
                start,
                offset,
                time_us,
                cursor,
                skip_trimmed,
                auto_commit_ms,
                heartbeat_ms,
                max_silence_ms,
            } => {
                let start = match start.as_str() {
                    "earliest" => StartAt::Earliest,
                    "latest" => StartAt::Latest,
                    "offset" => StartAt::Offset(offset.ok_or_else(|| invalid("no offset"))?),
                    "time" => {
                        let time_us = time_us.ok_or_else(|| invalid("no time_us"))?;
                        StartAt::Time(UNIX_EPOCH + Duration::from_micros(time_us))
                    }
                    "last" => StartAt::Last(offset.ok_or_else(|| invalid("no offset"))?),
                    other => return Err(invalid(&format!("unknown start {other:?}"))),
                };
                let defaults = ConsumerOptions::new(log);
                let opened = self.cluster()?.consumer(&ConsumerOptions {
                    start,
                    cursor,
                    auto_commit: auto_commit_ms.map(ms),
                    skip_trimmed,
                    heartbeat: heartbeat_ms.map_or(defaults.heartbeat, ms),
                    max_silence: max_silence_ms.map(ms),
                    ..defaults
                });
                let opened = opened.map_err(|error| described(&error))?;
                let shared = SharedConsumer { consumer: opened, skipped: Mutex::new(0) };
                self.consumers.insert(consumer, Arc::new(shared));
                answer(id, Ok(json!({})));
            }
            Command::Next { consumer, max, timeout_ms } => {
                let shared = self.consumer(&consumer)?;
                later(id.clone(), move || shared.next(max, ms(timeout_ms)));
            }
            Command::Commit { consumer } => {
                let shared = self.consumer(&consumer)?;
                let committed =
                    move || shared.consumer.commit().map(|next_offset| json!({ "next_offset": next_offset }));
                later(id.clone(), move || committed().map_err(|error| described(&error)));
            }
            Command::CloseConsumer { consumer } => {
                let shared = self.consumer(&consumer)?;
                later(id.clone(), move || nothing(shared.consumer.close()));
            }
            Command::GetCursor { log, cursor } => {
                let cluster = self.cluster()?;
                let found = move || {
                    let found = cluster.cursor(&log, &cursor)?;
                    Ok(json!({ "next_offset": found.next_offset, "epoch": found.epoch, "lag": found.lag }))
                };
                later(id.clone(), move || found().map_err(|error: Error| described(&error)));
            }
            Command::Close {} => {
                self.close();
                answer(id, Ok(json!({})));
            }
        }
        Ok(())
    }

    fn cluster(&self) -> Result<Cluster, Value> {
        self.cluster.clone().ok_or_else(|| invalid("connect first"))
    }

    fn producer(&self, name: &str) -> Result<Arc<SharedProducer>, Value> {
        self.producers.get(name).cloned().ok_or_else(|| invalid(&format!("no producer {name:?}")))
    }

    fn consumer(&self, name: &str) -> Result<Arc<SharedConsumer>, Value> {
        self.consumers.get(name).cloned().ok_or_else(|| invalid(&format!("no consumer {name:?}")))
    }

    fn close(&mut self) {
        // They stay, and answer that they are closed.
        for shared in self.producers.values() {
            let _ = shared.producer.close(Duration::ZERO);
        }
        for shared in self.consumers.values() {
            let _ = shared.consumer.close();
        }
        self.cluster = None;
    }
}

impl SharedProducer {
    fn start(producer: Producer) -> Arc<SharedProducer> {
        let (sends, queue) = crossbeam_channel::unbounded::<Act>();
        let (answers, answered) = crossbeam_channel::unbounded::<Reply>();
        std::thread::spawn(move || answered.iter().for_each(|answer| answer()));
        let shared = Arc::new(SharedProducer { producer, sends, answers });
        // Ends with the last reference.
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            while let Ok(send) = queue.recv() {
                let Some(shared) = weak.upgrade() else { return };
                send(&shared.producer);
            }
        });
        shared
    }

    fn queue(&self, act: impl FnOnce(&Producer) + Send + 'static) {
        let _ = self.sends.send(Box::new(act));
    }

    /// Answers after the commands before it.
    fn in_turn(answers: &crossbeam_channel::Sender<Reply>, id: Value, act: impl FnOnce() -> Answer + Send + 'static) {
        let _ = answers.send(Box::new(move || answer(&id, act())));
    }

    fn send(&self, id: Value, record: Record) {
        let answers = self.answers.clone();
        self.queue(move |producer| match producer.send(record) {
            Ok(handle) => SharedProducer::in_turn(&answers, id, move || match handle.wait() {
                Ok(ack) => Ok(json!({ "offset": ack.offset, "duplicate": ack.duplicate })),
                Err(error) => Err(described(&error)),
            }),
            Err(error) => answer(&id, Err(described(&error))),
        });
    }

    fn send_many(&self, id: Value, count: u64, record: impl Fn(u64) -> Record + Send + 'static) {
        let answers = self.answers.clone();
        self.queue(move |producer| {
            let handles: Vec<Result<AckHandle, Error>> = (0..count).map(|n| producer.send(record(n))).collect();
            SharedProducer::in_turn(&answers, id, move || {
                let (mut first, mut last, mut duplicates) = (None, None, 0);
                for handle in handles {
                    let ack = handle.and_then(AckHandle::wait).map_err(|error| described(&error))?;
                    first = first.or(ack.offset);
                    last = ack.offset;
                    duplicates += u64::from(ack.duplicate);
                }
                Ok(json!({ "first_offset": first, "last_offset": last, "duplicates": duplicates }))
            });
        });
    }
}

impl SharedConsumer {
    fn next(&self, max: usize, timeout: Duration) -> Answer {
        let until = Instant::now() + timeout;
        let mut records = Vec::new();
        while records.len() < max {
            match self.consumer.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Some(received)) => {
                    records.push(json!({ "offset": received.offset, "value": text(&received.record.value) }));
                }
                Ok(None) => break,
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(described(&error)),
            }
        }
        let mut before = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = self.consumer.skipped();
        Ok(json!({ "records": records, "skipped": skipped - std::mem::replace(&mut *before, skipped) }))
    }
}
