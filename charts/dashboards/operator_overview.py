"""Dashboard: whether Topics and ConsumerGroups are reconciled, and how the operator sees the brokers."""
from board import (ANY_IS_BAD, GREEN, OF_OPERATORS, OPERATOR, OPERATOR_STARTS, RED, YELLOW, Board, line, process, quantiles, rates, steps)

CLUSTER = OPERATOR + ',cluster=~"$cluster"'
VARIABLES = [
    ("namespace", "Namespace", "label_values(keelson_operator_leader, namespace)"),
    ("job", "Job", 'label_values(keelson_operator_leader{namespace=~"$namespace"}, job)'),
    ("cluster", "Cluster", f"label_values(keelson_operator_cluster_wal_health{{{OPERATOR}}}, cluster)"),
]
ERRORS = "keelson_operator_reconcile_errors_total"


def board():
    b = Board("keelson-operator", "Keelson / Operator", "Whether Topics and ConsumerGroups are reconciled, and how the operator sees the brokers.",
              VARIABLES, [OPERATOR_STARTS])
    for section in (overview, reconciling, brokers):
        section(b)
    process(b, OPERATOR, OF_OPERATORS)
    return b


def overview(b):
    b.row("Overview")
    b.stat("Leaders", "Operators that hold the lease. Normal: 1 for each cluster.", "short", f"sum(keelson_operator_leader{{{OPERATOR}}}) or vector(0)",
           thresholds=steps((None, RED), (1, GREEN)))
    b.stat("Operators", "Operators that give metrics; those that do not lead wait.", "short", f"count(keelson_operator_leader{{{OPERATOR}}}) or vector(0)",
           thresholds=steps((None, RED), (1, GREEN)))
    b.stat("Reconcile errors in an hour", "Reconciliations that failed within the last hour. Alert KeelsonReconcileErrors when they go on.", "short",
           f"round(sum(increase({ERRORS}{{{OPERATOR}}}[1h])))", thresholds=steps((None, GREEN), (1, YELLOW)))
    b.stat("Brokers with a sick log", "Brokers of which the operator hears that the log is not ok. Normal: 0.", "short",
           f'count(keelson_operator_cluster_wal_health{{{CLUSTER},state="ok"}} == 0) or vector(0)', thresholds=ANY_IS_BAD)
    b.stat("Shortest uptime", "Time since the youngest operator started.", "s",
           f"min(time() - process_start_time_seconds{{{OPERATOR}}} {OF_OPERATORS})", thresholds=steps((None, YELLOW), (3600, GREEN)))
    b.table("Versions", "The version of every operator.", "none", f"max by (instance, version) (keelson_build_info{{{OPERATOR}}} {OF_OPERATORS})",
            hide=("Value",), width=4, height=4)


def reconciling(b):
    b.row("Reconciling")
    b.graph("Reconciliations", "Finished reconciliations per second, by kind and result.", "ops",
            [rates("kind, result", "keelson_operator_reconcile_total", OPERATOR, "{{kind}} {{result}}")])
    b.graph("Reconcile errors", "Failed reconciliations per second, by kind and reason; the reason also stands in the resource's condition. "
            "Normal: 0.", "ops", [rates("kind, reason", ERRORS, OPERATOR, "{{kind}} {{reason}}")], bad=True)
    b.graph("Reconcile duration", "Median and 99th percentile by kind, the answers of broker and API server included.", "s",
            quantiles("keelson_operator_reconcile_duration_seconds", OPERATOR, by="kind", which=((0.5, "p50"), (0.99, "p99"))))
    b.states("Lease", "Which operator leads. Normal: one, always the same. Nobody: alert KeelsonOperatorNoLeader.", "none",
             f"max by (instance) (keelson_operator_leader{{{OPERATOR}}})", "{{instance}}", {"0": ("waits", YELLOW), "1": ("leads", GREEN)},
             width=24, height=5, thresholds=steps((None, YELLOW), (1, GREEN)))


def brokers(b):
    b.row("Brokers as the operator sees them")
    b.graph("Log states", "Brokers in each state; a broker that does not answer has none. Normal: all are ok.", "short",
            [line(f"sum by (state) (keelson_operator_cluster_wal_health{{{CLUSTER}}})", "{{state}}")], width=12)
    b.table("Log health of brokers", "States that are on, by cluster and broker.", "none",
            f"max by (cluster, broker, state) (keelson_operator_cluster_wal_health{{{CLUSTER}}}) == 1", hide=("Value",), width=12)
