# Namespaces are deleted in every order. A Topic with deletionPolicy Delete has a finalizer, which must never hold a namespace for
# longer than a minute if the operator was alive when the deletion began.
held_max=60

home_and_team() { # RELEASE: a release in the namespace RELEASE that also looks after RELEASE-team, with Topics in both
  release="$1" ns="$1" team="$1-team"
  namespace "$ns" && namespace "$team" && client_pod && install --set "crds.install=$(crds_missing)" --set "operator.watchNamespaces={$ns,$team}" --wait --timeout 180s || return 1
  topics_in "$ns" && topics_in "$team"
}
topics_in() { # NAMESPACE: twenty with Delete and one with Retain, all Ready
  local i
  for i in $(seq 20); do
    printf -- '---\napiVersion: keelson.dev/v1alpha1\nkind: Topic\nmetadata: {name: t%s}\nspec: {clusterRef: {name: %s}, topicName: %s.t%s, partitions: 1, deletionPolicy: Delete}\n' \
      "$i" "$release" "$1" "$i"
  done | kubectl -n "$1" apply -f - && kubectl -n "$1" apply -f - <<T && kubectl -n "$1" wait --for=condition=Ready topics.keelson.dev --all --timeout=90s
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: kept}
spec: {clusterRef: {name: $release}, topicName: $1.kept, partitions: 1, deletionPolicy: Retain}
T
}
gone() { # NAMESPACE...: deleted at the same time, and gone within a minute
  local begun; begun=$(date +%s%N)
  kubectl delete namespace "$@" --timeout="${held_max}s" || { left_in "$@"; return 1; }
  echo "measured: gone after $(seconds_since "$begun") s"
}
left_in() { local it; for it in "$@"; do kubectl get namespace "$it" -o jsonpath='{.status.conditions}'; kubectl -n "$it" get topics.keelson.dev,pods -o wide; done; }
topics_went() { # NAMESPACE: those with Delete are gone from the broker, the one with Retain is not
  until_ok 30 on_broker "$1.kept" && fails in_client "kcat -L -b $release-bootstrap:9092 -J | grep -oE '\"topic\":\"$1[.]t[0-9]+\"'"
}
held() { # NAMESPACE: its Topics say why they wait
  kubectl delete namespace "$1" --wait=false && ns="$1" until_has '^True DeletionHeld' 60 condition topic.keelson.dev/t1 Deleting && kubectl get namespace "$1"
}
ends() { # NAMESPACE: one that is being deleted goes within a minute
  local begun; begun=$(date +%s%N)
  kubectl wait --for=delete "namespace/$1" --timeout="${held_max}s" || { left_in "$1"; return 1; }
  echo "measured: gone $(seconds_since "$begun") s later"
}
operator_stopped() { k scale "deployment/$release-operator" --replicas=0 && k wait --for=delete pod -l app.kubernetes.io/component=operator --timeout=60s; }
stuck() { kubectl delete namespace "$1" --wait=false && until_has 'keelson.dev/delete-topic' 60 kubectl get namespace "$1" -o jsonpath='{.status.conditions}'; }
by_hand() { # NAMESPACE: the line that docs/runbooks/stuck-namespace.md has for it
  local line; line="$(sed -n 's/^ *\(kubectl .*"finalizers":null.*\)/\1/p' docs/runbooks/stuck-namespace.md)"
  [[ -n "$line" ]] && eval "${line//NS/$1}"
}

section "Namespaces deleted, in every order" "Each release looks after its own namespace and a team's. In both are twenty Topics with deletionPolicy Delete and one with Retain."
release=home-a ns=home-a
ok "a release, two namespaces, 42 Topics" home_and_team home-a
ok "the team's namespace is deleted" gone home-a-team
ok "its topics with Delete went, the one with Retain stayed" topics_went home-a-team
ok "the release's own namespace is deleted, with Topics in it" gone home-a

release=home-b ns=home-b
ok "again two namespaces" home_and_team home-b
ok "the release's namespace is deleted first" gone home-b
ok "the team's Topics are still there, and hold nothing" eval '[[ "$(kubectl -n home-b-team get topics.keelson.dev -o name | wc -l)" == 21 && -z "$(kubectl -n home-b-team get topics.keelson.dev -o jsonpath="{.items[*].metadata.finalizers}")" ]]'
ok "then the team's" gone home-b-team

release=home-c ns=home-c
ok "again two namespaces" home_and_team home-c
ok "both are deleted at once" gone home-c home-c-team

release=home-d ns=home-d
ok "again two namespaces" home_and_team home-d
ok "the broker is away" broker_stops
ok "the team's namespace is deleted meanwhile: it is held, with the reason on its Topics" held home-d-team
ok "the broker comes back" broker_starts
ok "the team's namespace goes" ends home-d-team
ok "its topics with Delete went, the one with Retain stayed" topics_went home-d-team
ok "the release's namespace is deleted while the broker is away" eval 'broker_stops && gone home-d'

release=home-e ns=home-e
ok "again two namespaces" home_and_team home-e
ok "the broker is gone for good: its StatefulSet is deleted" k delete "statefulset/$release-broker" --timeout=90s
ok "the team's namespace is deleted: nothing to wait for" gone home-e-team
ok "the operator was stopped before the deletion of its own namespace began: Topics hold it" eval 'operator_stopped && stuck home-e'
ok "the line of the runbook lets it go" eval 'by_hand home-e && ends home-e'
if kubectl get namespace second >/dev/null 2>&1; then
  release=other ns=second
  ok "the namespace of the second release, the last one" gone second
fi
