"""Dashboard: who reads, who lags, by how many records and by how much time."""
from board import (BROKER, BROKER_STARTS, BROKER_VARIABLES, GREEN, GROUP_VARIABLE, RATE, RED, TOPIC_VARIABLE, YELLOW, Board, line, rates, steps)

GROUP = BROKER + ',topic=~"$topic",consumergroup=~"$consumergroup"'
MEMBERS = f'kafka_consumergroup_members{{{BROKER},consumergroup=~"$consumergroup"}}'
LAG = f"kafka_consumergroup_lag_sum{{{GROUP}}}"
# From 15 minutes on there is an alert.
LATE = steps((None, GREEN), (300, YELLOW), (900, RED))


def board():
    b = Board("keelson-groups", "Keelson / Consumer groups", "Lag of consumer groups in records and in time, what they read, and their members.",
              BROKER_VARIABLES + [TOPIC_VARIABLE, GROUP_VARIABLE], [BROKER_STARTS])
    for section in (overview, lag, reading, coordination):
        section(b)
    return b


def overview(b):
    b.row("Overview")
    b.stat("Consumer groups", "Groups that have members or committed offsets.", "short", f"count(count by (consumergroup) ({MEMBERS}))")
    b.stat("Members", "Members of all groups.", "short", f"sum({MEMBERS})")
    b.stat("Total lag", "Records that the groups have yet to read.", "short", f"sum({LAG})")
    b.stat("Longest lag in time", "Age of what the slowest group reads next. Alert KeelsonConsumerLag from 15 minutes.", "s",
           f"max(keelson_consumergroup_lag_seconds{{{GROUP}}})", thresholds=LATE)
    b.stat("Groups without members", "Groups that have lag and no members. The application is down, or has left for good. Normal: 0.", "short",
           f"count(sum by (consumergroup) ({LAG}) > 0 and sum by (consumergroup) ({MEMBERS}) == 0) or vector(0)",
           thresholds=steps((None, GREEN), (1, YELLOW)))
    b.stat("Messages consumed per second", "Offsets committed per second by these groups.", "mps",
           f"sum(rate(kafka_consumergroup_current_offset_sum{{{GROUP}}}[{RATE}]))")


def lag(b):
    b.row("Lag")
    b.graph("Lag by consumer group", "Records between the committed offset and the end. Normal: goes up and down. Steadily up: too few "
            "consumers. Level while records come: stalled.", "short",
            [line(f"sum by (consumergroup, topic) ({LAG})", "{{consumergroup}} {{topic}}")], width=12)
    b.graph("Lag in time by consumer group", "Age of the oldest record that a group has not read. Alert KeelsonConsumerLag from 15 minutes.", "s",
            [line(f"max by (consumergroup, topic) (keelson_consumergroup_lag_seconds{{{GROUP}}})", "{{consumergroup}} {{topic}}")],
            width=12, thresholds=LATE)
    b.table("Lag by partition", "The fifty partitions with the largest lag: one that stands out has a slow consumer or damage.", "short",
            f"topk(50, sum by (consumergroup, topic, partition) (kafka_consumergroup_lag{{{GROUP}}}))", names={"Value": "lag"}, width=12)
    b.graph("Time to catch up", "What is left divided by what is read now: how long a group needs if nothing more came. Growing: it falls behind.", "s",
            [line(f"sum by (consumergroup, topic) ({LAG}) / (sum by (consumergroup, topic) "
                  f"(rate(kafka_consumergroup_current_offset_sum{{{GROUP}}}[{RATE}])) > 0)", "{{consumergroup}} {{topic}}")], width=12)


def reading(b):
    b.row("Reading")
    b.graph("Messages consumed per second by group", "Offsets committed per second.", "mps",
            [rates("consumergroup, topic", "kafka_consumergroup_current_offset_sum", GROUP, "{{consumergroup}} {{topic}}")])
    b.graph("Messages consumed per minute by group", "Offsets committed in the last minute, as kafka_exporter's dashboards show it.", "short",
            [line(f"sum by (consumergroup, topic) (delta(kafka_consumergroup_current_offset_sum{{{GROUP}}}[1m]))", "{{consumergroup}} {{topic}}")])
    b.graph("Slowest partitions", "Offsets committed per second in the ten partitions that move least: 0 is a consumer that hangs, "
            "or a partition that nobody writes to.", "mps",
            [line(f"bottomk(10, sum by (consumergroup, topic, partition) (rate(kafka_consumergroup_current_offset{{{GROUP}}}[{RATE}])))",
                  "{{consumergroup}} {{topic}} {{partition}}")])
    b.graph("Members by group", "Members of each group. 0 with lag: the application is down.", "short",
            [line(f"sum by (consumergroup) ({MEMBERS})", "{{consumergroup}}")], width=24)


def coordination(b):
    b.row("All groups of the brokers")
    b.graph("Groups by state", "Empty: no members, but offsets. PreparingRebalance: waits for members to join. CompletingRebalance: waits for "
            "the leader's assignment. Stable: everybody works. Dead: being deleted. Normal: the rebalances pass.", "short",
            [line(f"sum by (state) (keelson_consumergroups{{{BROKER}}})", "{{state}}")], stack=True, width=12)
    b.graph("Rebalances", "Rebalances that began, per second. Normal: a few after members come or go. All the time: members are too slow for "
            "max.poll.interval.ms or session.timeout.ms.", "ops", [rates("instance", "keelson_consumergroup_rebalances_total", BROKER, "{{instance}}")], width=12)
    b.graph("Requests to join", "Requests with which members enter and leave groups, per second. Normal: next to none while the members stay the "
            "same.", "reqps", [rates("api", "keelson_kafka_requests_total", BROKER + ',api=~"JoinGroup|SyncGroup|LeaveGroup"', "{{api}}")], width=12)
    b.graph("Expired offsets", "Committed offsets that were removed per second, since nobody had used them for offsets.retention.minutes.", "ops",
            [rates("instance", "keelson_consumergroup_expired_offsets_total", BROKER, "{{instance}}")], width=12)
