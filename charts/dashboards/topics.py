"""Dashboard: what is produced to which topic, what is kept, and where its replicas are."""
from board import (ANY_IS_BAD, BROKER, BROKER_STARTS, BROKER_VARIABLES, RATE, TOPIC_VARIABLE, Board, line, rates)

TOPIC = BROKER + ',topic=~"$topic"'
CURRENT = "kafka_topic_partition_current_offset"
OLDEST = "kafka_topic_partition_oldest_offset"


def board():
    b = Board("keelson-topics", "Keelson / Topics", "What is produced to each topic, what is kept, and how it is replicated.",
              BROKER_VARIABLES + [TOPIC_VARIABLE], [BROKER_STARTS])
    for section in (overview, messages, kept, replicas):
        section(b)
    return b


def overview(b):
    b.row("Overview")
    b.stat("Topics", "Topics that are chosen above, internal ones included.", "short", f"count(count by (topic) (kafka_topic_partitions{{{TOPIC}}}))")
    b.stat("Partitions", "Their partitions.", "short", f"sum(kafka_topic_partitions{{{TOPIC}}})")
    b.stat("Replicas", "Replicas of their partitions.", "short", f"sum(kafka_topic_partition_replicas{{{TOPIC}}})")
    b.stat("In-sync replicas", "Replicas that have all that is committed. Normal: as many as replicas.", "short",
           f"sum(kafka_topic_partition_in_sync_replica{{{TOPIC}}})")
    b.stat("Under-replicated partitions", "Partitions with fewer in-sync replicas than replicas. Normal: 0.", "short",
           f"sum(kafka_topic_partition_under_replicated_partition{{{TOPIC}}})", thresholds=ANY_IS_BAD)
    b.stat("Messages in per second", "Records appended per second to these topics.", "mps", f"sum(rate({CURRENT}{{{TOPIC}}}[{RATE}]))")


def messages(b):
    b.row("Messages")
    b.graph("Messages in per second by topic", "Records appended per second.", "mps", [rates("topic", CURRENT, TOPIC, "{{topic}}")], stack=True, width=12)
    b.graph("Messages in per minute by topic", "Records appended in the last minute, as kafka_exporter's dashboards show it.", "short",
            [line(f"sum by (topic) (delta({CURRENT}{{{TOPIC}}}[1m]))", "{{topic}}")], stack=True, width=12)
    b.graph("Busiest partitions", "Records appended per second in the ten busiest partitions. One far above the others: a hot key.", "mps",
            [line(f"topk(10, sum by (topic, partition) (rate({CURRENT}{{{TOPIC}}}[{RATE}])))", "{{topic}} {{partition}}")], width=24)


def kept(b):
    b.row("Kept")
    b.graph("Messages kept by topic", "Offsets between the oldest and the newest. It falls when retention or DeleteRecords takes some; "
            "compaction leaves gaps, which are counted.", "short",
            [line(f"sum by (topic) ({CURRENT}{{{TOPIC}}}) - sum by (topic) ({OLDEST}{{{TOPIC}}})", "{{topic}}")], stack=True, width=12)
    b.graph("Offsets that have gone per second", "How fast the oldest offset moves up: retention and DeleteRecords.", "mps",
            [rates("topic", OLDEST, TOPIC, "{{topic}}")], width=12)
    b.table("Offsets by partition", "The newest offset of each partition; the fifty largest.", "short",
            f"topk(50, sum by (topic, partition) ({CURRENT}{{{TOPIC}}}))", names={"Value": "end offset"}, width=12)
    b.bars("Partitions per topic", "Partitions of each topic. They may only grow.", "short",
           f"sort_desc(sum by (topic) (kafka_topic_partitions{{{TOPIC}}}))", "{{topic}}", width=12)


def replicas(b):
    b.row("Replicas")
    b.graph("Replicas and in-sync replicas", "Summed over the partitions of a topic. Normal: both lines lie on each other.", "short",
            [line(f"sum by (topic) (kafka_topic_partition_in_sync_replica{{{TOPIC}}})", "{{topic}} in sync"),
             line(f"sum by (topic) (kafka_topic_partition_replicas{{{TOPIC}}})", "{{topic}} replicas")], width=12)
    b.graph("Leader changes", "Partitions that got another leader within five minutes. Normal: 0, but for restarts.", "short",
            [line(f"sum by (topic) (changes(kafka_topic_partition_leader{{{TOPIC}}}[5m]))", "{{topic}}")], width=12)
