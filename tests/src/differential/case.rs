//! Who calls: a script runs its cases, each once per version of its API with names of its own, and each call is a step.
//!
//! Owns the connection, the names and what is written down. Waits for what a broker does behind its answers (a topic that
//! was created becomes writable, a coordinator loads), so that a step never sees a state in between.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::time::Duration;

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DescribeGroupsRequest, GroupId, ListOffsetsRequest, TopicName,
};
use kafka_protocol::protocol::Request;
use keelson_protocol::api::{self, ApiSpec};
use serde_json::Value;

use super::normal::normalise;
use super::recording::{Recording, Step};
use super::tree::tree;
use crate::wire::{Wire, text};
use crate::{wait_for, wait_until};

/// How long a broker may take until what it did behind an answer is seen.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Errors that say "not yet".
const NOT_YET: [i16; 4] = [
    14, // COORDINATOR_LOAD_IN_PROGRESS
    15, // COORDINATOR_NOT_AVAILABLE
    16, // NOT_COORDINATOR
    51, // CONCURRENT_TRANSACTIONS
];

/// The script of one family, running against one broker.
#[derive(Debug)]
pub(super) struct Script {
    address: String,
    family: &'static str,
    run: String,
    /// Versions that the broker advertises, by API key.
    advertised: Vec<(i16, i16, i16)>,
    cases: usize,
    recording: Recording,
}

impl Script {
    /// For a broker at `address`; `run` tells the names of this run from those of another.
    pub(super) fn new(address: &str, family: &'static str, run: &str) -> Self {
        let answer = Wire::connect(address).call(
            3,
            &kafka_protocol::messages::ApiVersionsRequest::default()
                .with_client_software_name(text("keelson-tests"))
                .with_client_software_version(text("1")),
        );
        let advertised = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        Self {
            address: address.to_owned(),
            family,
            run: run.to_owned(),
            advertised,
            cases: 0,
            recording: Recording::default(),
        }
    }

    /// Runs a case once per version of an API that both this broker and the table of Keelson's APIs know.
    pub(super) fn each<R: Request>(&mut self, name: &'static str, body: impl Fn(&mut Case<'_>)) {
        let spec = api::spec(R::KEY).expect("a script calls what Keelson serves");
        self.each_of(name, spec, spec.min..=spec.max, body);
    }

    /// Runs a case once, for steps of several APIs with fixed versions; `R` at its highest version is the case's own.
    pub(super) fn once<R: Request>(&mut self, name: &'static str, body: impl Fn(&mut Case<'_>)) {
        let spec = api::spec(R::KEY).expect("a script calls what Keelson serves");
        self.each_of(name, spec, spec.max..=spec.max, body);
    }

    /// Runs a case once per version of a range.
    pub(super) fn each_of(
        &mut self,
        name: &'static str,
        spec: &'static ApiSpec,
        versions: impl IntoIterator<Item = i16>,
        body: impl Fn(&mut Case<'_>),
    ) {
        self.cases += 1;
        let known = self
            .advertised
            .iter()
            .find(|(key, ..)| *key == spec.key as i16)
            .map(|(_, min, max)| *min..=*max);
        for version in versions {
            if !known.as_ref().is_some_and(|known| known.contains(&version)) {
                continue;
            }
            let tag = format!("-{}{}v{version}{}", &self.family[..2], self.cases, self.run);
            let wire = Wire::connect(&self.address);
            let mut case = Case {
                script: self,
                api: spec.key as i16,
                name,
                version,
                tag,
                markers: 0,
                wire,
            };
            body(&mut case);
        }
    }

    /// What was answered.
    pub(super) fn into_recording(self) -> Recording {
        self.recording
    }
}

/// One run of a case, with one version.
#[derive(Debug)]
pub(super) struct Case<'a> {
    script: &'a mut Script,
    api: i16,
    name: &'static str,
    /// The version under test.
    pub(super) version: i16,
    tag: String,
    /// Topics made to see that changes before them are seen.
    markers: usize,
    wire: Wire,
}

impl Case<'_> {
    /// A name that no other case has, and that is shown without what makes it so.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{name}{}", self.tag)
    }

    /// Another connection.
    pub(super) fn connect(&self) -> Wire {
        Wire::connect(&self.script.address)
    }

    /// A call of the case's API in the version under test.
    #[track_caller]
    pub(super) fn call<R>(&mut self, step: &str, request: &R) -> R::Response
    where
        R: Request,
        R::Response: Debug + Default,
    {
        self.call_at(step, self.version, request)
    }

    /// A call in a version of its own.
    #[track_caller]
    pub(super) fn call_at<R>(&mut self, step: &str, version: i16, request: &R) -> R::Response
    where
        R: Request,
        R::Response: Debug + Default,
    {
        self.edited(step, version, request, |_| {})
    }

    /// A call whose answer is cut to what belongs to the case before it is compared: other cases run at the same time.
    #[track_caller]
    pub(super) fn edited<R>(
        &mut self,
        step: &str,
        version: i16,
        request: &R,
        edit: impl FnOnce(&mut R::Response),
    ) -> R::Response
    where
        R: Request,
        R::Response: Debug + Default,
    {
        match self.wire.try_call(version, request) {
            Ok(mut answer) => {
                edit(&mut answer);
                self.note::<R>(step, version, tree(&answer));
                answer
            }
            Err(error) => {
                self.closed::<R>(step, version, &error);
                R::Response::default()
            }
        }
    }

    /// Repeats a call until `done`, and writes down the last answer only.
    #[track_caller]
    pub(super) fn patiently<R>(
        &mut self,
        step: &str,
        version: i16,
        request: &R,
        done: impl Fn(&R::Response) -> bool,
    ) -> R::Response
    where
        R: Request,
        R::Response: Debug,
    {
        let answer = self.until(step, version, request, done);
        self.note_answer::<R>(step, version, &answer);
        answer
    }

    /// Writes down an answer that was read on another connection.
    pub(super) fn note<R: Request>(&mut self, step: &str, version: i16, answer: Value) {
        let api = api::spec(R::KEY)
            .expect("a script calls what Keelson serves")
            .name;
        let answer = normalise(answer, &self.tag);
        if R::KEY == self.api && version == self.version {
            self.push(api, step, answer);
        } else {
            self.push(&format!("{api}@{version}"), step, answer);
        }
    }

    /// The same of an answer as it was decoded.
    pub(super) fn note_answer<R>(&mut self, step: &str, version: i16, answer: &R::Response)
    where
        R: Request,
        R::Response: Debug,
    {
        self.note::<R>(step, version, tree(answer));
    }

    /// Writes down what a script found out by itself.
    pub(super) fn found(&mut self, step: &str, answer: Value) {
        self.push("found", step, answer);
    }

    fn push(&mut self, api: &str, step: &str, answer: Value) {
        let step = Step {
            family: self.script.family.to_owned(),
            case: self.name.to_owned(),
            step: step.to_owned(),
            api: api.to_owned(),
            version: self.version,
        };
        self.script.recording.push(step, answer);
    }

    /// The connection ended instead of an answer; that is an answer, too.
    #[track_caller]
    fn closed<R: Request>(&mut self, step: &str, version: i16, error: &std::io::Error) {
        assert!(ended(error), "{step}: {error}");
        self.note::<R>(step, version, "<closed>".into());
        self.wire = self.connect();
    }

    /// Sends a frame (without its length) and writes down the answer's bytes, or that the connection was closed. The
    /// answer is shown in hexadecimal, without its correlation id.
    #[track_caller]
    pub(super) fn raw(&mut self, step: &str, frame: &[u8]) {
        let mut wire = self.connect();
        let stream = wire.stream();
        let length = u32::try_from(frame.len()).expect("a frame fits");
        stream
            .write_all(&[&length.to_be_bytes(), frame].concat())
            .expect("a socket takes a frame");
        let mut first = [0; 4];
        let answer = match stream.read_exact(&mut first) {
            Err(error) if ended(&error) => "<closed>".to_owned(),
            Err(error) => panic!("{step}: {error}"),
            Ok(()) => {
                let mut answer = vec![0; u32::from_be_bytes(first) as usize];
                stream.read_exact(&mut answer).expect("a whole answer");
                let shown = answer.iter().skip(4).take(16);
                shown.map(|byte| format!("{byte:02x}")).collect()
            }
        };
        self.push("frame", step, answer.into());
    }

    /// A call that is not written down.
    #[track_caller]
    pub(super) fn quietly<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.wire.call(version, request)
    }

    /// Makes a topic and waits until its partitions answer.
    #[track_caller]
    pub(super) fn topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> String {
        let name = self.name(name);
        self.wire.create_topic(&name, partitions, configs);
        self.settle(&name, partitions);
        name
    }

    /// Waits until all partitions of a topic answer.
    #[track_caller]
    pub(super) fn settle(&mut self, topic: &str, partitions: i32) {
        let asked = (0..partitions)
            .map(|index| {
                ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_timestamp(-1)
            })
            .collect();
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(TopicName(text(topic)))
                    .with_partitions(asked),
            ]);
        wait_until("a new topic answers", SETTLED_WITHIN, || {
            let answer = self.wire.call(2, &request);
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.all(|partition| partition.error_code == 0)
        });
    }

    /// All of partition 0, normalised: for steps that show what a call left behind.
    #[track_caller]
    pub(super) fn fetched(&mut self, topic: &str) -> Value {
        let fetched = self.wire.fetch(topic, 0, 0);
        let latin1 = fetched.bytes.iter().copied().map(char::from).collect();
        normalise(
            serde_json::json!({ "records": Value::String(latin1) }),
            &self.tag,
        )
    }

    /// Where partition 0 of a topic ends.
    #[track_caller]
    pub(super) fn topic_ends(&mut self, topic: &str) -> i64 {
        let end = self.wire.list_offset(topic, 0, -1);
        end.expect("a topic has an end")
    }

    /// Waits until a partition ends at an offset: a transaction's markers are written behind the answer.
    #[track_caller]
    pub(super) fn settled_offset(&mut self, topic: &str, partition: i32, offset: i64) {
        wait_until("the markers are written", SETTLED_WITHIN, || {
            let committed = self.wire.list_offset(topic, partition, -1);
            committed.expect("a topic has an end") >= offset
        });
    }

    /// Deletes the records of partition 0 below an offset.
    #[track_caller]
    pub(super) fn delete_records(&mut self, topic: &str, offset: i64) {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let answer = self.wire.call(2, &request);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    }

    /// Waits until what was changed before is seen: changes are seen in order, so a topic made now is seen after them.
    #[track_caller]
    pub(super) fn settle_changes(&mut self) {
        self.markers += 1;
        let marker = format!("marker{}", self.markers);
        self.topic(&marker, 1, &[]);
    }

    /// Waits until a topic that was deleted is gone.
    #[track_caller]
    pub(super) fn settle_gone(&mut self, topic: &str) {
        wait_until("a deleted topic is gone", SETTLED_WITHIN, || {
            self.wire.metadata(topic).topics[0].error_code == 3
                && self.wire.list_offset(topic, 0, -1).is_err()
        });
    }

    /// The id of a topic.
    #[track_caller]
    pub(super) fn topic_id(&mut self, topic: &str) -> uuid::Uuid {
        let asked = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(TopicName(text(topic))));
        let request =
            kafka_protocol::messages::MetadataRequest::default().with_topics(Some(vec![asked]));
        self.wire.call(12, &request).topics[0].topic_id
    }

    /// The name of a group whose coordinator is ready.
    #[track_caller]
    pub(super) fn group(&mut self, name: &str) -> String {
        let name = self.name(name);
        let find = FindCoordinatorRequest::default().with_key(text(&name));
        let describe = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(&name))]);
        wait_until("a group's coordinator is ready", SETTLED_WITHIN, || {
            self.wire.call(3, &find).error_code == 0
                && self.wire.call(5, &describe).groups[0].error_code == 0
        });
        name
    }

    /// A transactional id with its producer id and epoch.
    #[track_caller]
    pub(super) fn transactional(&mut self, name: &str) -> (String, i64, i16) {
        let name = self.name(name);
        let (id, epoch) = self.init_producer(Some(&name));
        (name, id, epoch)
    }

    /// A producer id and epoch.
    #[track_caller]
    pub(super) fn init_producer(&mut self, transactional_id: Option<&str>) -> (i64, i16) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|id| text(id).into()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        wait_for("a producer id is given", SETTLED_WITHIN, || {
            let answer = self.wire.call(4, &request);
            if NOT_YET.contains(&answer.error_code) {
                return None;
            }
            assert_eq!(answer.error_code, 0, "InitProducerId");
            Some((answer.producer_id.0, answer.producer_epoch))
        })
    }

    /// Repeats a call that is not written down until `done`.
    #[track_caller]
    pub(super) fn until<R: Request>(
        &mut self,
        what: &str,
        version: i16,
        request: &R,
        done: impl Fn(&R::Response) -> bool,
    ) -> R::Response {
        wait_for(what, SETTLED_WITHIN, || {
            Some(self.wire.call(version, request)).filter(|answer| done(answer))
        })
    }
}

/// Whether the other side closed the connection.
fn ended(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "in {} / {} with version {}",
                self.script.family, self.name, self.version
            );
        }
    }
}
