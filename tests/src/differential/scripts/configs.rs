//! DescribeConfigs, IncrementalAlterConfigs and AlterConfigs.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    alter_configs_request,
};

use super::super::case::Script;
use crate::wire::text;

/// Names with values, or with none.
type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(in super::super) fn run(script: &mut Script) {
    describe_configs(script);
    every_config(script);
    incremental_alter_configs(script);
    incremental_alter_configs_wrongly(script);
    alter_configs(script);
}

fn asked(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()))
}

fn describe(resources: Vec<DescribeConfigsResource>) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(resources)
}

fn describe_configs(script: &mut Script) {
    script.each::<DescribeConfigsRequest>("describe configs", |case| {
        let version = case.version;
        let topic = case.topic("orders", 1, &[("retention.ms", "1000000")]);
        let some: Option<&[&str]> = Some(&[
            "retention.ms",
            "cleanup.policy",
            "no.such.key",
            "segment.bytes",
        ]);
        let of_topic = describe(vec![asked(TOPIC, &topic, some)]);
        case.call("some keys", &of_topic);
        case.call(
            "with synonyms",
            &of_topic.clone().with_include_synonyms(true),
        );
        if version >= 3 {
            case.call(
                "with documentation",
                &of_topic.clone().with_include_documentation(true),
            );
        }
        case.edited(
            "no key",
            version,
            &describe(vec![asked(TOPIC, &topic, Some(&[]))]),
            |answer| {
                // Which keys there are is asked once, with the newest version.
                answer.results[0].configs.truncate(0);
            },
        );
        for (step, kind, name) in [
            ("unknown topic", TOPIC, &*case.name("nobody")),
            ("a name that cannot be", TOPIC, "a b"),
            ("no topic", TOPIC, ""),
            ("another broker", BROKER, "9"),
            ("a broker that is no number", BROKER, "one"),
            ("no such kind", 99, "x"),
            ("unknown kind", 0, "x"),
            ("loggers of another broker", LOGGER, "9"),
        ] {
            case.call(step, &describe(vec![asked(kind, name, some)]));
        }
        let of_broker: Option<&[&str]> = Some(&[
            "num.partitions",
            "node.id",
            "group.initial.rebalance.delay.ms",
            "no.such.key",
        ]);
        case.call(
            "this broker",
            &describe(vec![asked(BROKER, "1", of_broker)]),
        );
        case.call("all brokers", &describe(vec![asked(BROKER, "", of_broker)]));
        let two = describe(vec![
            asked(TOPIC, &topic, some),
            asked(BROKER, "1", of_broker),
        ]);
        case.edited("two at once", version, &two, |answer| {
            answer.results.sort_by_key(|result| result.resource_type);
        });
        let twice = describe(vec![
            asked(TOPIC, &topic, some),
            asked(TOPIC, &topic, of_broker),
        ]);
        case.call("the same twice", &twice);
        case.call("none", &describe(vec![]));
    });
}

fn every_config(script: &mut Script) {
    script.once::<DescribeConfigsRequest>("every config", |case| {
        let topic = case.topic("orders", 1, &[]);
        case.call("of a topic", &describe(vec![asked(TOPIC, &topic, None)]));
    });
}

/// One change of a config: key, operation, value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let configs = changes
        .iter()
        .map(|(key, operation, value)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        })
        .collect();
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs)
}

fn alter(resources: Vec<AlterConfigsResource>) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest::default().with_resources(resources)
}

fn incremental_alter_configs(script: &mut Script) {
    script.each::<IncrementalAlterConfigsRequest>("alter configs", |case| {
        let topic = case.topic("orders", 1, &[("retention.ms", "1000000")]);
        let changes: &[(&str, &[Change<'_>])] = &[
            (
                "set",
                &[
                    ("retention.ms", SET, Some("2000000")),
                    ("segment.bytes", SET, Some("2000000")),
                ],
            ),
            ("appended", &[("cleanup.policy", APPEND, Some("compact"))]),
            (
                "appended again",
                &[("cleanup.policy", APPEND, Some("compact"))],
            ),
            (
                "subtracted",
                &[("cleanup.policy", SUBTRACT, Some("delete"))],
            ),
            (
                "subtracted what is not there",
                &[("cleanup.policy", SUBTRACT, Some("delete"))],
            ),
            ("deleted", &[("retention.ms", DELETE, None)]),
            ("deleted again", &[("retention.ms", DELETE, None)]),
            (
                "deleted with a value",
                &[("segment.bytes", DELETE, Some("7"))],
            ),
            ("nothing", &[]),
        ];
        let keys: Option<&[&str]> = Some(&["retention.ms", "segment.bytes", "cleanup.policy"]);
        for (step, changes) in changes {
            case.call(step, &alter(vec![resource(TOPIC, &topic, changes)]));
            case.settle_changes();
            let request = describe(vec![asked(TOPIC, &topic, keys)]);
            case.call_at(&format!("{step}, and then"), 4, &request);
        }
        let request = alter(vec![resource(
            TOPIC,
            &topic,
            &[("retention.ms", SET, Some("3000000"))],
        )]);
        case.call("only validated", &request.with_validate_only(true));
        case.settle_changes();
        let request = describe(vec![asked(TOPIC, &topic, keys)]);
        case.call_at("only validated, and then", 4, &request);
    });
}

fn replace(kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    let configs = configs
        .iter()
        .map(|(key, value)| {
            alter_configs_request::AlterableConfig::default()
                .with_name(text(key))
                .with_value(value.map(text))
        })
        .collect();
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs);
    AlterConfigsRequest::default().with_resources(vec![resource])
}

fn alter_configs(script: &mut Script) {
    script.each::<AlterConfigsRequest>("replace configs", |case| {
        let configs = [("retention.ms", "1000000"), ("segment.bytes", "2000000")];
        let topic = case.topic("orders", 1, &configs);
        let keys: Option<&[&str]> = Some(&["retention.ms", "segment.bytes", "cleanup.policy"]);
        let shown = describe(vec![asked(TOPIC, &topic, keys)]);
        let good: &[(&str, Option<&str>)] = &[("cleanup.policy", Some("compact"))];
        let request = replace(TOPIC, &topic, good).with_validate_only(true);
        case.call("only validated", &request);
        case.settle_changes();
        case.call_at("only validated, and then", 4, &shown);
        case.call("replaced", &replace(TOPIC, &topic, good));
        case.settle_changes();
        case.call_at("replaced, and then", 4, &shown);
        let wrong: &[(&str, Pairs<'_>)] = &[
            ("unknown key", &[("no.such.key", Some("1"))]),
            ("not a number", &[("retention.ms", Some("long"))]),
            ("no value", &[("retention.ms", None)]),
            (
                "the same key twice",
                &[("retention.ms", Some("1")), ("retention.ms", Some("2"))],
            ),
        ];
        for (step, configs) in wrong {
            let request = replace(TOPIC, &topic, configs).with_validate_only(true);
            case.call(step, &request);
        }
        for (step, kind, name) in [
            ("unknown topic", TOPIC, &*case.name("nobody")),
            ("a name that cannot be", TOPIC, "a b"),
            ("no topic", TOPIC, ""),
            ("another broker", BROKER, "9"),
            ("no such kind", 99, "x"),
        ] {
            case.call(step, &replace(kind, name, good));
        }
        case.call("none", &AlterConfigsRequest::default());
        case.call("emptied", &replace(TOPIC, &topic, &[]));
        case.settle_changes();
        case.call_at("emptied, and then", 4, &shown);
    });
}

fn incremental_alter_configs_wrongly(script: &mut Script) {
    script.each::<IncrementalAlterConfigsRequest>("alter configs wrongly", |case| {
        let topic = case.topic("orders", 1, &[]);
        let wrong: &[(&str, &[Change<'_>])] = &[
            ("unknown key", &[("no.such.key", SET, Some("1"))]),
            ("unknown key deleted", &[("no.such.key", DELETE, None)]),
            ("empty key", &[("", SET, Some("1"))]),
            ("not a number", &[("retention.ms", SET, Some("long"))]),
            ("out of range", &[("retention.ms", SET, Some("-2"))]),
            ("no value", &[("retention.ms", SET, None)]),
            ("an empty value", &[("retention.ms", SET, Some(""))]),
            ("append to a number", &[("retention.ms", APPEND, Some("1"))]),
            (
                "subtract from a number",
                &[("retention.ms", SUBTRACT, Some("1"))],
            ),
            ("append nothing", &[("cleanup.policy", APPEND, None)]),
            (
                "append what cannot be",
                &[("cleanup.policy", APPEND, Some("burn"))],
            ),
            ("no such operation", &[("retention.ms", 9, Some("1"))]),
            (
                "the same key twice",
                &[
                    ("retention.ms", SET, Some("1")),
                    ("retention.ms", SET, Some("2")),
                ],
            ),
            (
                "one good, one bad",
                &[
                    ("retention.ms", SET, Some("5000000")),
                    ("segment.bytes", SET, Some("x")),
                ],
            ),
        ];
        for (step, changes) in wrong {
            case.call(step, &alter(vec![resource(TOPIC, &topic, changes)]));
            let checked = alter(vec![resource(TOPIC, &topic, changes)]).with_validate_only(true);
            case.call(&format!("{step}, only validated"), &checked);
        }
        let good: &[Change<'_>] = &[("retention.ms", SET, Some("5000000"))];
        for (step, kind, name) in [
            ("unknown topic", TOPIC, &*case.name("nobody")),
            ("a name that cannot be", TOPIC, "a b"),
            ("no topic", TOPIC, ""),
            ("another broker", BROKER, "9"),
            ("a broker that is no number", BROKER, "one"),
            ("no such kind", 99, "x"),
            ("unknown kind", 0, "x"),
        ] {
            case.call(step, &alter(vec![resource(kind, name, good)]));
        }
        let twice = alter(vec![
            resource(TOPIC, &topic, good),
            resource(TOPIC, &topic, good),
        ]);
        case.call("the same twice", &twice);
        case.call("none", &alter(vec![]));
        case.settle_changes();
        let request = describe(vec![asked(
            TOPIC,
            &topic,
            Some(&["retention.ms", "segment.bytes"]),
        )]);
        case.call_at("nothing changed", 4, &request);
    });
}
