//! What is written to Kubernetes, and nothing else is.
//!
//! Owns the status patch, the finalizer and Events. Status goes by server-side apply and carries the uid, so that a
//! report about one object never lands on a later one of the same name. A 404 is never an error: the object is gone.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_crds::{API_VERSION, Condition, Kind, find};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource};
use serde::Serialize;
use serde_json::json;
use tracing::warn;

/// Who the API server sees.
pub(super) const FIELD_MANAGER: &str = "keelson-operator";
/// Longest note of an Event; Kubernetes refuses more than 1,024 bytes.
const NOTE_BYTES_MAX: usize = 1000;
/// Tries to change the finalizer list while others change the object.
const FINALIZER_TRIES_MAX: usize = 5;

/// The API of one kind in one namespace, for writing.
pub(super) fn api(client: &Client, kind: Kind, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

/// The API of one kind in all namespaces, for listing.
pub(super) fn api_everywhere(client: &Client, kind: Kind) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource(kind))
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Topic => ApiResource::erase::<keelson_crds::Topic>(&()),
        Kind::ConsumerGroup => ApiResource::erase::<keelson_crds::ConsumerGroup>(&()),
    }
}

/// True if the API server says that there is no such object.
pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Where an object is, and which one it is.
#[derive(Clone, Debug)]
pub(super) struct ObjectId {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl ObjectId {
    pub(super) fn new(kind: Kind, meta: &ObjectMeta) -> Self {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        Self {
            kind,
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
        }
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(self.kind.as_str().to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// Writes the whole status.
pub(super) async fn write_status(
    client: &Client,
    id: &ObjectId,
    status: &impl Serialize,
) -> Result<(), kube::Error> {
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": id.kind.as_str(),
        "metadata": { "name": id.name, "namespace": id.namespace, "uid": id.uid },
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api(client, id.kind, &id.namespace)
        .patch_status(&id.name, &params, &Patch::Apply(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes parts of a status where server-side apply cannot: it refuses an object whose spec does not fit the schema.
pub(super) async fn merge_status(
    client: &Client,
    id: &ObjectId,
    status: &serde_json::Value,
) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({ "metadata": { "uid": id.uid }, "status": status }));
    match api(client, id.kind, &id.namespace)
        .patch_status(&id.name, &merging(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn merging() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// What shall become of the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finalizer {
    On,
    Off,
}

/// Puts our finalizer on an object or takes it off, whatever others do to it meanwhile.
pub(super) async fn set_finalizer(
    client: &Client,
    id: &ObjectId,
    wish: Finalizer,
) -> Result<(), String> {
    let api = api(client, id.kind, &id.namespace);
    let finalizer = id.kind.finalizer();
    for _ in 0..FINALIZER_TRIES_MAX {
        let found = match api.get(&id.name).await {
            Ok(found) => found,
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let meta = found.meta();
        if meta.uid.as_deref() != Some(id.uid.as_str()) {
            return Ok(());
        }
        let mut list = meta.finalizers.clone().unwrap_or_default();
        let has = list.iter().any(|it| it == finalizer);
        match wish {
            Finalizer::On if has => return Ok(()),
            Finalizer::On if meta.deletion_timestamp.is_some() => {
                return Err("the object is being deleted".to_owned());
            }
            Finalizer::On => list.push(finalizer.to_owned()),
            Finalizer::Off if !has => return Ok(()),
            Finalizer::Off => list.retain(|it| it != finalizer),
        }
        // Not by server-side apply, which refuses an object whose spec does not fit the schema of today: such a one
        // could never go.
        let patch =
            json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": list } });
        match api.patch(&id.name, &merging(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!(
        "the object changed {FINALIZER_TRIES_MAX} times while its finalizer was to be set"
    ))
}

/// Puts an annotation on an object.
pub(super) async fn annotate(
    client: &Client,
    id: &ObjectId,
    (key, value): (&str, &str),
) -> Result<(), kube::Error> {
    let patch =
        Patch::Merge(json!({ "metadata": { "uid": id.uid, "annotations": { key: value } } }));
    match api(client, id.kind, &id.namespace)
        .patch(&id.name, &merging(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Something to tell.
pub(super) struct Notice {
    pub(super) warning: bool,
    pub(super) reason: String,
    pub(super) action: &'static str,
    pub(super) note: String,
}

/// Publishes an Event. One that cannot be published is logged and forgotten: it is news, not state.
pub(super) async fn publish(recorder: &Recorder, id: &ObjectId, notice: Notice) {
    let mut note = notice.note;
    if note.len() > NOTE_BYTES_MAX {
        let end = (0..=NOTE_BYTES_MAX)
            .rev()
            .find(|at| note.is_char_boundary(*at))
            .unwrap_or(0);
        note.truncate(end);
    }
    let event = Event {
        type_: if notice.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: notice.reason,
        note: Some(note),
        action: notice.action.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &id.reference()).await {
        warn!(
            kind = id.kind.as_str(),
            namespace = id.namespace,
            name = id.name,
            "no Event: {error}"
        );
    }
}

/// The Events that a change of conditions deserves: every change of a status, trouble that is there from the start, and
/// trouble that became another one.
pub(super) fn transitions(
    old: &[Condition],
    new: &[Condition],
    bad: impl Fn(&Condition) -> bool,
) -> Vec<Notice> {
    let told = |it: &&Condition| match old.iter().find(|before| before.type_ == it.type_) {
        Some(before) if before.status == it.status => bad(it) && before.reason != it.reason,
        Some(_) => true,
        None => bad(it),
    };
    let notice = |it: &Condition| Notice {
        warning: bad(it),
        reason: it.reason.clone(),
        action: "Observe",
        note: format!("{} is {}: {}", it.type_, it.status.as_str(), it.message),
    };
    new.iter().filter(told).map(notice).collect()
}

/// The condition of a list that has the status which means trouble.
pub(super) fn is_bad(types: &[keelson_crds::ConditionType], condition: &Condition) -> bool {
    types.iter().any(|it| {
        it.as_str() == condition.type_
            && find(std::slice::from_ref(condition), *it)
                .is_some_and(|found| found.status == it.bad_status())
    })
}
