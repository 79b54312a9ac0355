# Listeners for clients outside: a load balancer, whose address somebody else would write into the Service's status (here by hand),
# then a port on the nodes. The release is used by volumes.sh, too.
ns=edges release=edge
# For documentation (RFC 5737, RFC 2606): nobody has them, but in the cluster kube-proxy takes a Service's own address for its own.
balancer_ip=198.51.100.7 balancer_name=balancer.example.com
external_port=9094 node_port=30994

listener() { # NAME: what its clients are told, and why
  pod_http "$release-broker-0:9080" /admin/v1/identity | jq -r --arg name "$1" '.listeners[] | select(.name == $name) | "\(.advertised): \(.why)"'
}
told_at() { in_client "kcat -L -m 5 -J -b $1" | jq -r '.brokers[].name'; } # ADDRESS: the brokers that a client in the cluster is told there
outside() { echo "$release-broker-0-external:$external_port"; }
with_balancer() { # Helm does not wait for load balancers that nobody makes
  install --set "crds.install=$(crds_missing),broker.listeners.external.enabled=true,broker.persistence.storageClassName=$growing_class" &&
    k rollout status "statefulset/$release-broker" --timeout=120s && k rollout status "deployment/$release-operator" --timeout=120s && topic outside 1 Retain
}
no_address_yet() { until_has '^null: the Service .* has no address yet' 150 listener EXTERNAL && [[ -z "$(told_at "$(outside)")" ]]; }
ingress() { k patch "service/$release-broker-0-external" --subresource=status --type=merge -p "{\"status\":{\"loadBalancer\":{\"ingress\":[$1]}}}"; }
follows() { # INGRESS ADDRESS: the broker tells it, without a restart
  local uid begun; uid="$(broker_uid)"; begun=$(date +%s%N)
  ingress "$1" && until_has "^$2: status.loadBalancer of the Service" 150 listener EXTERNAL || return 1
  echo "measured: told $(seconds_since "$begun") s later"
  [[ "$(broker_uid)" == "$uid" && "$(k get pod "$release-broker-0" -o jsonpath='{.status.containerStatuses[0].restartCount}')" == 0 ]]
}
there_and_back() { # ADDRESS: a hundred records, by a client that knows nothing else
  in_client "kcat -L -b $1 -t outside >/dev/null && seq -f $1-%g 100 | timeout 60 kcat -P -b $1 -t outside -X acks=all && timeout 60 kcat -C -b $1 -t outside -o beginning -e -q | grep -c ^$1-" | grep -x 100
}
by_node_port() {
  helm -n "$ns" upgrade "$release" charts/keelson --reuse-values --set "broker.listeners.external.type=NodePort,broker.listeners.external.nodePort=$node_port" --wait --timeout 180s
}
node_address() { echo "$(k get pod "$release-broker-0" -o jsonpath='{.status.hostIP}'):$node_port"; }
reached_from_here() { timeout 5 bash -c "</dev/tcp/$(node_address | tr : /)" 2>/dev/null; }
from_here() { seq 100 | timeout 60 kcat -P -b "$(node_address)" -t from-here -X acks=all && timeout 60 kcat -C -b "$(node_address)" -t from-here -o beginning -e -q | wc -l | grep -x 100; }

section "Listeners for clients outside" "This cluster makes no load balancers: the address of one is written into the Service's status by hand."
ok "a namespace and a client" eval 'namespace $ns && client_pod'
ok "helm install with a listener behind a load balancer that has no address yet: the broker is Ready" with_balancer
ok "clients of that listener get no broker, and the broker says why" no_address_yet
ok "the status is given an address: the broker advertises it, without a restart" follows "{\"ip\":\"$balancer_ip\"}" "$balancer_ip:$external_port"
ok "a client in the cluster that starts at that listener is told this address" has "^$balancer_ip:$external_port\$" told_at "$(outside)"
ok "clients of the other listener are told the inner name, as before" has "^$release-broker-0\.$ns\.svc\..*:9092\$" told_at "$release-bootstrap:9092"
ok "a hundred records through that address, there and back" there_and_back "$balancer_ip:$external_port"
ok "the status is given a name instead: the broker follows, without a restart" follows "{\"hostname\":\"$balancer_name\"}" "$balancer_name:$external_port"
ok "helm upgrade --set type=NodePort" by_node_port
ok "a client is told the node's address and the port" eval 'has "^$(node_address)\$" told_at "$(node_address)"'
ok "a hundred records through the node's address, there and back" eval 'there_and_back "$(node_address)"'
if ! command -v kcat >/dev/null; then
  absent "the same by a client outside of the cluster" "there is no kcat on this machine"
elif [[ -n "$own" ]] || reached_from_here; then
  ok "the same by a client outside of the cluster" eval 'topic from-here 1 Retain && from_here'
else
  absent "the same by a client outside of the cluster" "nodes are not reached from this machine"
fi
