# A second release of another name beside the first, with the CRDs of the first and a topic of the same name.
ns=second release=other
same_topic_name() { # each Topic is about its own cluster
  topic orders 2 Delete && in_client "echo from-$release | kcat -P -b $release-bootstrap:9092 -t orders -X acks=all" &&
    has_records 1 orders && ns=streams release=keelson has_records 1055 orders
}
other_cluster() { # a Topic that names a cluster which nobody here serves is left alone
  k apply -f - <<T
apiVersion: keelson.dev/v1alpha1
kind: Topic
metadata: {name: elsewhere}
spec: {clusterRef: {name: nowhere}, partitions: 1}
T
  topic seen-later 1 Retain && prints_nothing k get topic.keelson.dev/elsewhere -o jsonpath='{.status}'
}

section "A release of another name beside it"
ok "a namespace and a client" eval 'namespace $ns && client_pod'
ok "helm install other --set crds.install=false --wait" install --set crds.install=false --wait --timeout 180s
ok "helm test" helm -n "$ns" test "$release" --timeout 120s
ok "a Topic of the same name as one of the first release: two topics in two clusters" same_topic_name
ok "a Topic of a third cluster is left alone" other_cluster
