//! The ConfigMap `<cluster>-broker-identity`: what was seen of every broker, and where it is reached from outside; the
//! brokers' pods mount it.
//!
//! Owns reading brokers and Services and writing that object; the rules stand in `crate::identity` and `crate::external`. It is written only when an entry
//! changes, with the resourceVersion that was read, so that two leaders never write over each other. What others put into
//! it (an acceptance) is left alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Service};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::context::Context;
use super::objects::FIELD_MANAGER;
use crate::external::{self, Address};
use crate::health;
use crate::identity::{Answer, Place, Step, decide, key};
use crate::kafka::Kafka;

/// How the keys of entries end.
const IDENTITY: &str = ".identity";
const EXTERNAL: &str = ".EXTERNAL";
/// Pause between two looks at the brokers.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The object is looked at every so many resyncs although no broker has anything new to tell: somebody may have removed it.
const LOOK_RESYNCS: u32 = 5;

/// What brokers and Services say.
#[derive(Default, PartialEq)]
struct News {
    answers: Vec<Answer>,
    /// By broker.
    addresses: BTreeMap<i32, Address>,
}

/// What a leader remembers between two looks.
#[derive(Default)]
struct Keeper {
    /// What was in order the last time, and when.
    seen: Option<(News, Instant)>,
    /// What was told already.
    told: Vec<String>,
}

/// Keeps the ConfigMap up to date for as long as this process leads.
pub(super) async fn keep(context: &Context, http: reqwest::Client, port: u16) {
    let mut keeper = Keeper::default();
    loop {
        keeper.round(context, &http, port).await;
        tokio::time::sleep(PAUSE_MAX.min(context.resync)).await;
    }
}

impl Keeper {
    async fn round(&mut self, context: &Context, http: &reqwest::Client, port: u16) {
        let brokers = match context.kafka.brokers().await {
            Ok(brokers) => brokers,
            Err(error) => {
                debug!("no list of brokers: {error}");
                return;
            }
        };
        let calls = brokers
            .iter()
            .map(|broker| health::ask_broker::<Answer>(http, broker, port, "identity"));
        let mut news = News::default();
        for answer in futures::future::join_all(calls).await {
            match answer {
                Ok(answer) => news.answers.push(answer),
                Err(error) => debug!("{error}"),
            }
        }
        let ids = brokers.iter().map(|broker| broker.id);
        match addresses(context, ids).await {
            Ok(addresses) => news.addresses = addresses,
            Err(error) => {
                warn!("the brokers' Services were not read: {error}");
                return;
            }
        }
        let is_news = self.seen.as_ref().is_none_or(|(seen, at)| {
            *seen != news || at.elapsed() >= context.resync * LOOK_RESYNCS
        });
        if news == News::default() || !is_news {
            return;
        }
        match self.bring_up_to_date(context, &news).await {
            Ok(()) => self.seen = Some((news, Instant::now())),
            Err(error) => warn!("what is known of the brokers was not kept: {error}"),
        }
    }

    async fn bring_up_to_date(
        &mut self,
        context: &Context,
        news: &News,
    ) -> Result<(), kube::Error> {
        let place = Place {
            namespace: context.namespace.clone(),
            name: format!("{}-broker-identity", context.cluster),
        };
        let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &place.namespace);
        let found = api.get_opt(&place.name).await?;
        let old = found.as_ref().and_then(|it| it.data.clone());
        let old = own_entries(old.unwrap_or_default());
        let mut data = old.clone();
        data.retain(|key, _| key.ends_with(IDENTITY));
        for (id, address) in &news.addresses {
            data.insert(external::key(*id), json!(address).to_string());
        }
        let mut refusals = Vec::new();
        for answer in &news.answers {
            let key = key(answer.broker_id);
            match decide(data.get(&key).map(String::as_str), answer, &place) {
                Step::Keep => {}
                Step::Write(entry) => {
                    let entry = json!(entry).to_string();
                    info!(entry, "a broker's identity is kept");
                    data.insert(key, entry);
                }
                Step::Refuse(words) => refusals.push(words),
            }
        }
        self.tell(context, &place, refusals).await;
        let owners = owners(context).await?;
        let changed = data != old || found.as_ref().is_none_or(|it| sets(it) != owners);
        if changed {
            let version = found.as_ref().and_then(ResourceExt::resource_version);
            let object = object(context, &place, version, (data, owners));
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(&place.name, &params, &Patch::Apply(object))
                .await?;
        }
        Ok(())
    }

    /// A refusal is told once, in the log and as an Event on the ConfigMap.
    async fn tell(&mut self, context: &Context, place: &Place, refusals: Vec<String>) {
        for words in &refusals {
            if self.told.contains(words) {
                continue;
            }
            warn!("{words}");
            let event = Event {
                type_: EventType::Warning,
                reason: "IdentityConflict".to_owned(),
                note: Some(words.clone()),
                action: "Compare".to_owned(),
                secondary: None,
            };
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("ConfigMap".to_owned()),
                namespace: Some(place.namespace.clone()),
                name: Some(place.name.clone()),
                ..ObjectReference::default()
            };
            if let Err(error) = context.recorder.publish(&event, &about).await {
                warn!("no Event about {}: {error}", place.name);
            }
        }
        self.told = refusals;
    }
}

/// Where the brokers' Services are reached, if brokers are to be told.
async fn addresses(
    context: &Context,
    ids: impl Iterator<Item = i32>,
) -> Result<BTreeMap<i32, Address>, kube::Error> {
    let mut found = BTreeMap::new();
    if context.external_services {
        let api: Api<Service> = Api::namespaced(context.client.clone(), &context.namespace);
        for id in ids {
            let name = external::service_name(&context.cluster, id);
            let service = api.get_opt(&name).await?;
            found.insert(id, external::address(&name, service.as_ref()));
        }
    }
    Ok(found)
}

/// The entries that are ours: applying without one of them would remove it.
fn own_entries(mut data: BTreeMap<String, String>) -> BTreeMap<String, String> {
    data.retain(|key, _| key.ends_with(IDENTITY) || key.ends_with(EXTERNAL));
    data
}

/// The StatefulSets that own an object.
fn sets(object: &ConfigMap) -> Value {
    let owners = object.owner_references().iter();
    json!(
        owners
            .filter(|it| it.kind == "StatefulSet")
            .collect::<Vec<_>>()
    )
}

/// Where the volumes go with the StatefulSet, what is known of them goes, too: else a later release of this name would
/// find its empty volume refused.
async fn owners(context: &Context) -> Result<Value, kube::Error> {
    let name = format!("{}-broker", context.cluster);
    let api: Api<StatefulSet> = Api::namespaced(context.client.clone(), &context.namespace);
    let Some(set) = api.get_opt(&name).await? else {
        return Ok(json!([]));
    };
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let with_it = policy.is_some_and(|it| it.when_deleted.as_deref() == Some("Delete"));
    let owner = with_it.then(|| set.owner_ref(&())).flatten();
    Ok(json!(owner.into_iter().collect::<Vec<_>>()))
}

fn object(
    context: &Context,
    place: &Place,
    version: Option<String>,
    (data, owners): (BTreeMap<String, String>, Value),
) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": place.name,
            "namespace": place.namespace,
            "resourceVersion": version,
            "ownerReferences": owners,
            "labels": {
                "app.kubernetes.io/instance": context.cluster,
                "app.kubernetes.io/component": "broker",
                "app.kubernetes.io/part-of": "keelson",
                "app.kubernetes.io/managed-by": FIELD_MANAGER,
            },
            "annotations": {
                "keelson.dev/about": "Which data directory every broker was seen with; a broker refuses another one. See docs/runbooks/identity.md.",
            },
        },
        "data": data,
    })
}
