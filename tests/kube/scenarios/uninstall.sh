# Uninstalling: with Topics left, again over what was kept, and with none left. Uses the release of first-day.sh.
ns=streams release=keelson
uninstall() { helm -n "$ns" uninstall "$release" --wait --timeout 180s; }
nothing_holds_topics() { [[ -n "$(k get topics.keelson.dev -o name)" && -z "$(k get topics.keelson.dev -o jsonpath='{.items[*].metadata.finalizers}')" ]]; }
some_held() { [[ -n "$(k get topics.keelson.dev -o jsonpath='{.items[*].metadata.finalizers}')" ]]; }
crds_kept() { kubectl get crd topics.keelson.dev consumergroups.keelson.dev; }
all_ready_again() { k wait --for=condition=Ready topics.keelson.dev --all --timeout=120s && k wait --for=condition=Ready consumergroups.keelson.dev --all --timeout=60s; }
no_topic_left() { # the client's own view: only what Topics with Retain had, and internal topics
  k delete topics.keelson.dev,consumergroups.keelson.dev --all --timeout=60s && prints_nothing k get topics.keelson.dev -o name && fails on_broker doomed && on_broker orders
}

section "Uninstall"
ok "a Topic with deletionPolicy Delete, which has a finalizer" eval 'topic doomed 1 Delete && some_held'
ok "helm uninstall --wait, with Topics left" uninstall
ok "Topics and CRDs are kept, and no finalizer is left on them" eval 'crds_kept && nothing_holds_topics'
ok "the data volume is kept, and what is known of it" k get "pvc/data-$release-broker-0" "configmap/$release-broker-identity"
ok "nothing else of the release is left" until_empty 60 left
ok "helm install again, over the volume and the Topics that were kept" install --wait --timeout 180s
ok "every Topic and ConsumerGroup is Ready again" all_ready_again
ok "all records are still there" has_records 1055 orders
ok "every Topic is deleted: topics go where the policy is Delete, and stay where it is Retain" no_topic_left
ok "helm uninstall --wait, without Topics left" uninstall
ok "nothing but CRDs, the volume and what is known of it is left" eval 'crds_kept && k get pvc "data-$release-broker-0" && until_empty 60 left'
ok "the namespace is deleted, and the volume with it" kubectl delete namespace "$ns" --timeout=90s
