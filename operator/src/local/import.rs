//! `keelson-operator import`: manifests of the topics that exist.
//!
//! Owns the way back from facts to a spec. What is printed is what `apply` and `run` adopt without a change: a unit test
//! asks `decide`. It changes nothing.

use std::collections::BTreeSet;
use std::process::ExitCode;

use keelson_crds::{API_VERSION, Kind, OWNER_CONFIG, check};
use serde_json::{Map, Value, json};

use crate::kafka::real::RealKafka;
use crate::kafka::{Kafka, TopicFacts};

/// Longest name of an object that is made up from a topic's; there is room for a number behind it.
const NAME_CHARS_MAX: usize = 240;

/// Prints them. Topics that no manifest can describe are told in comments, and make the exit code 1.
pub(crate) async fn import(bootstrap: &str) -> anyhow::Result<ExitCode> {
    let (text, whole) = manifests(&RealKafka::new(bootstrap)?).await?;
    print!("{text}");
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All manifests as one YAML stream, and whether they are all.
async fn manifests<K: Kafka>(kafka: &K) -> anyhow::Result<(String, bool)> {
    let (mut text, mut whole, mut taken) = (String::new(), true, BTreeSet::new());
    let mut names = kafka.topics().await?;
    // Names that can stay come first: none of them is taken by one that is made up.
    names.sort_by_key(|it| (!is_object_name(it), it.clone()));
    for name in names {
        // Deleted since.
        let Some(facts) = kafka.topic(&name).await? else {
            continue;
        };
        let object = object(&name, &facts, &mut taken);
        text.push_str("---\n");
        if let Some(owner) = facts
            .configs
            .get(OWNER_CONFIG)
            .and_then(|it| it.value.as_ref())
            && !owner.is_empty()
        {
            text.push_str(&format!("# belongs to {owner}\n"));
        }
        match check(Kind::Topic, &object, None) {
            Ok(()) => text.push_str(&serde_norway::to_string(&object)?),
            Err(problems) => {
                whole = false;
                for problem in problems {
                    text.push_str(&format!("# topic {name} has no manifest: {problem}\n"));
                }
            }
        }
    }
    Ok((text, whole))
}

fn object(topic: &str, facts: &TopicFacts, taken: &mut BTreeSet<String>) -> Value {
    let name = object_name(topic, taken);
    let mut spec = Map::new();
    spec.insert("partitions".into(), json!(facts.partitions));
    spec.insert("replicationFactor".into(), json!(facts.replication_factor));
    if name != topic {
        spec.insert("topicName".into(), json!(topic));
    }
    let config: Map<String, Value> = facts
        .configs
        .iter()
        .filter(|(key, fact)| fact.explicit && *key != OWNER_CONFIG)
        .filter_map(|(key, fact)| Some((key.clone(), config_value(fact.value.as_ref()?))))
        .collect();
    if !config.is_empty() {
        spec.insert("config".into(), Value::Object(config));
    }
    json!({ "apiVersion": API_VERSION, "kind": Kind::Topic.as_str(), "metadata": { "name": name }, "spec": spec })
}

/// A number if it reads as one.
fn config_value(value: &str) -> Value {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => json!(number),
        Ok(_) | Err(_) => json!(value),
    }
}

fn is_object_name(name: &str) -> bool {
    let parts = |part: &str| {
        let lawful = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        !part.is_empty()
            && part.chars().all(lawful)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.split('.').all(parts)
}

/// The topic's own name if Kubernetes takes it, else one made up from it.
fn object_name(topic: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = topic.to_owned();
    if !is_object_name(topic) {
        let plain = |it: char| match it.to_ascii_lowercase() {
            it if it.is_ascii_alphanumeric() => it,
            _ => '-',
        };
        let made: String = topic.chars().map(plain).take(NAME_CHARS_MAX).collect();
        let made = match made.trim_matches('-') {
            "" => "topic",
            made => made,
        };
        let with_number = |at: u32| match at {
            1 => made.to_owned(),
            at => format!("{made}-{at}"),
        };
        name = (1..)
            .map(with_number)
            .find(|it| !taken.contains(it))
            .unwrap_or_default();
    }
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::fake::FakeKafka;
    use crate::kafka::{Mode, NewTopic};
    use crate::local::Place;
    use crate::topic::{Desired, ObjectView, converge};

    async fn create(kafka: &FakeKafka, name: &str, config: &[(&str, &str)]) {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let new = NewTopic {
            name: name.to_owned(),
            partitions: Some(3),
            replication_factor: Some(1),
            config: config.iter().map(pair).collect(),
        };
        kafka.create_topic(&new, Mode::Execute).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_printed_is_adopted_without_a_change() {
        let kafka = FakeKafka::default();
        create(
            &kafka,
            "orders",
            &[("retention.ms", "1000"), ("cleanup.policy", "compact")],
        )
        .await;
        create(&kafka, "Order_Lines", &[]).await;
        create(&kafka, "order-lines", &[("keelson.owner", "uid/ns/lines")]).await;
        create(&kafka, "_", &[]).await;
        let (text, whole) = manifests(&kafka).await.unwrap();
        assert!(whole, "{text}");
        assert!(text.contains("# belongs to uid/ns/lines\n"), "{text}");
        let before = kafka.calls().len();
        let mut names = Vec::new();
        for document in serde_norway::Deserializer::from_str(&text) {
            let topic = <keelson_crds::Topic as serde::Deserialize>::deserialize(document).unwrap();
            let name = topic.metadata.name.clone().unwrap();
            let desired = Desired::new(&topic.spec, &name, "me".to_owned());
            names.push(format!("{name}={}", desired.topic));
            let place = Place {
                owner: "me".to_owned(),
            };
            let view = ObjectView::default();
            let outcome = converge(&kafka, &place, &desired, view, Mode::ValidateOnly).await;
            let differs = &outcome.verdict.drift;
            assert!(differs.is_empty(), "{name}: {differs:?}");
        }
        let expected = [
            "order-lines=order-lines",
            "orders=orders",
            "order-lines-2=Order_Lines",
            "topic=_",
        ];
        assert_eq!(names, expected);
        assert_eq!(kafka.calls().len(), before, "nothing was changed");
    }

    #[tokio::test]
    async fn what_no_manifest_can_say() {
        let kafka = FakeKafka::default();
        create(&kafka, "odd", &[("no.such.key", "1")]).await;
        let (text, whole) = manifests(&kafka).await.unwrap();
        assert!(
            !whole && text.starts_with("---\n# topic odd has no manifest: "),
            "{text}"
        );
    }
}
