# What this test cannot see at work: NetworkPolicies, and load balancers that somebody makes. Rendered, and taken by the API server.
ns=rendering release=keelson
rendered() { helm -n "$ns" template "$release" charts/keelson --set "$(image_values "$image")" "$@"; }
taken() { rendered "$@" | kubectl -n "$ns" apply --dry-run=server -f - ; }
policies() { rendered --show-only templates/networkpolicies.yaml; }

section "Rendered only" "This cluster enforces no NetworkPolicy and makes no load balancers: whether packets are dropped, and whether an address is given,
is not tested here (what becomes of an address that was given is: see the listeners above). What the chart makes of them is taken by the
API server (\`--dry-run=server\`), and compared with goldens by \`make test\`."
ok "a namespace" namespace "$ns"
ok "NetworkPolicies: the API server takes them" has 'networkpolicy.networking.k8s.io/keelson-broker created' taken --set crds.install=false
ok "the broker's lets in Kafka from everybody, HTTP from monitoring and the operator" \
  eval '[[ "$(policies | grep -cE "port: (kafka|http), protocol: TCP")" == 3 ]]'
ok "the same that restrict outgoing traffic" has 'networkpolicy.networking.k8s.io/keelson-operator created' taken --set crds.install=false,networkPolicy.restrictEgress=true
ok "a load balancer's Service with source ranges: the API server takes it" has 'service/keelson-broker-0-external created' \
  taken --set crds.install=false,broker.listeners.external.enabled=true --set 'broker.listeners.external.loadBalancerSourceRanges={10.0.0.0/8}'
ok "the namespace is deleted" kubectl delete namespace "$ns" --timeout=60s
