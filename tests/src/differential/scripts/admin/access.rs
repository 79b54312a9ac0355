//! DescribeAcls, CreateAcls, DeleteAcls, DescribeClientQuotas, DescribeUserScramCredentials, delegation tokens.

use bytes::Bytes;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateDelegationTokenRequest, DeleteAclsRequest, DescribeAclsRequest,
    DescribeClientQuotasRequest, DescribeDelegationTokenRequest,
    DescribeUserScramCredentialsRequest, ExpireDelegationTokenRequest, RenewDelegationTokenRequest,
};

use super::super::super::case::Script;
use crate::wire::text;

const ANY: i8 = 1;
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const READ: i8 = 3;
const ALLOW: i8 = 3;

pub(super) fn run(script: &mut Script) {
    acls(script);
    quotas(script);
    tokens(script);
}

fn tokens(script: &mut Script) {
    script.each::<CreateDelegationTokenRequest>("create a token", |case| {
        let request = CreateDelegationTokenRequest::default().with_max_lifetime_ms(-1);
        case.call("for oneself", &request);
    });
    script.each::<RenewDelegationTokenRequest>("renew a token", |case| {
        let request = RenewDelegationTokenRequest::default()
            .with_hmac(Bytes::from_static(b"unknown"))
            .with_renew_period_ms(1_000);
        case.call("unknown", &request);
    });
    script.each::<ExpireDelegationTokenRequest>("expire a token", |case| {
        let request = ExpireDelegationTokenRequest::default()
            .with_hmac(Bytes::from_static(b"unknown"))
            .with_expiry_time_period_ms(-1);
        case.call("unknown", &request);
    });
    script.each::<DescribeDelegationTokenRequest>("describe tokens", |case| {
        let request = DescribeDelegationTokenRequest::default();
        case.call("all", &request.clone().with_owners(None));
        case.call("of nobody", &request.with_owners(Some(vec![])));
    });
}

fn acls(script: &mut Script) {
    script.each::<DescribeAclsRequest>("describe ACLs", |case| {
        let any = DescribeAclsRequest::default()
            .with_resource_type_filter(ANY)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(ANY)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        case.call("any", &any);
        case.call("of topics", &any.with_resource_type_filter(TOPIC));
    });
    script.each::<CreateAclsRequest>("create ACLs", |case| {
        let acl = AclCreation::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(&case.name("orders")))
            .with_resource_pattern_type(LITERAL)
            .with_principal(text("User:somebody"))
            .with_host(text("*"))
            .with_operation(READ)
            .with_permission_type(ALLOW);
        let request = |creations| CreateAclsRequest::default().with_creations(creations);
        case.call("one", &request(vec![acl.clone()]));
        case.call("two", &request(vec![acl.clone(), acl]));
        case.call("none", &request(vec![]));
    });
    script.each::<DeleteAclsRequest>("delete ACLs", |case| {
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(TOPIC)
            .with_resource_name_filter(Some(text(&case.name("orders"))))
            .with_pattern_type_filter(LITERAL)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        let request = |filters| DeleteAclsRequest::default().with_filters(filters);
        case.call("one", &request(vec![filter.clone()]));
        case.call("two", &request(vec![filter.clone(), filter]));
        case.call("none", &request(vec![]));
    });
}

fn quotas(script: &mut Script) {
    script.each::<DescribeClientQuotasRequest>("describe quotas", |case| {
        let of = |entity: &str, kind: i8| {
            let component = ComponentData::default()
                .with_entity_type(text(entity))
                .with_match_type(kind)
                .with_match((kind == 0).then(|| text("somebody")));
            DescribeClientQuotasRequest::default().with_components(vec![component])
        };
        case.call("all", &DescribeClientQuotasRequest::default());
        case.call("of a user", &of("user", 0));
        case.call("of the default user", &of("user", 1));
        case.call("of any client", &of("client-id", 2));
        case.call(
            "of any client and nothing else",
            &of("client-id", 2).with_strict(true),
        );
        case.call("of nothing known", &of("planet", 2));
        case.call("matched in no way", &of("user", 9));
    });
    script.each::<DescribeUserScramCredentialsRequest>("describe credentials", |case| {
        let users = |names: &[&str]| {
            let users = names
                .iter()
                .map(|name| UserName::default().with_name(text(name)));
            DescribeUserScramCredentialsRequest::default().with_users(Some(users.collect()))
        };
        case.call("of nobody", &users(&["nobody"]));
        case.edited(
            "of two",
            case.version,
            &users(&["nobody", "noone"]),
            |answer| {
                answer.results.sort_by_key(|result| result.user.to_string());
            },
        );
        case.call("of one twice", &users(&["nobody", "nobody"]));
        case.call("of no name", &users(&[""]));
    });
}
