//! The closed list of reasons: one vocabulary for conditions, Events, metric labels and the lines of `apply`.
//!
//! Owns each word and its one sentence. Nothing else in the project may invent a reason.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why a condition is what it is, why an Event was sent, why a reconciliation failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The word itself.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What the word means, in one sentence.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// The topic is as the spec describes it.
    AsDescribed,
    /// The group is being observed.
    Observed,
    /// No group of this id exists; it appears when its first consumer joins or commits.
    GroupAbsent,
    /// The spec was applied to the topic.
    Applied,
    /// The object is paused: the operator observes and changes nothing.
    Paused,
    /// The object breaks a rule of its kind, or cannot be read at all.
    InvalidSpec,
    /// The brokers could not be reached.
    BrokerUnreachable,
    /// The broker refused the request; its own error stands in the message.
    BrokerRefused,
    /// The broker answered something that does not make sense here; a retry follows.
    BrokerAnswerUnexpected,
    /// The topic has more partitions than the spec asks for, and Kafka cannot remove partitions.
    PartitionsCannotShrink,
    /// The topic has another number of replicas than the spec asks for, and that cannot be changed.
    ReplicationFactorCannotChange,
    /// The broker accepted the changes, yet the topic still differs from the spec.
    NotConverging,
    /// The topic is as the spec describes it.
    NoDrift,
    /// The topic differs from the spec.
    DriftFound,
    /// The topic differed from the spec and was changed back.
    DriftCorrected,
    /// The topic that belonged to this object is gone.
    TopicMissing,
    /// No topic belongs to this object yet.
    TopicAbsent,
    /// The topic belongs to this object.
    NoConflict,
    /// The topic belongs to another object.
    OwnedByAnother,
    /// The topic existed before and is not as described, so it was not adopted.
    DoesNotMatch,
    /// The topic existed before and `adoptionPolicy` is Never.
    AdoptionRefused,
    /// Objects of this namespace may only name topics and groups with the prefix that the operator was given for it.
    NameNotAllowed,
    /// Everything that the brokers hold of the topic decodes.
    LogHealthy,
    /// Records of the topic cannot be decoded; the place stands in the message.
    LogDamaged,
    /// A broker accepts no writes.
    LogReadOnly,
    /// Damage was found in the topic's log that cost no record; the place stands in the message.
    LogDegraded,
    /// Not every broker could be asked for the state of its log.
    LogUnknown,
    /// The object is not being deleted.
    NotDeleting,
    /// The topic is being deleted.
    DeletingTopic,
    /// The group is being deleted.
    DeletingGroup,
    /// The object is held until the broker can be reached or the time for it is up.
    DeletionHeld,
    /// The object is held until the group has no members.
    GroupNotEmpty,
    /// The lag is within the objective.
    LagWithinObjective,
    /// The lag is over the objective.
    LagAboveObjective,
    /// The spec has no lag objective.
    NoObjective,
    /// The lag is not known, since committed offsets, topics or the ages of records are missing.
    LagUnknown,
    /// The spec asks for no reset.
    NoReset,
    /// The reset waits until the group has no members.
    WaitingForEmptyGroup,
    /// The reset is recorded and being carried out.
    ResetRunning,
    /// The offsets of the group were reset.
    OffsetsReset,
    /// The reset was a dry run: its offsets are recorded, and nothing was committed.
    DryRun,
    /// The deadline of the reset passed before the group had no members.
    DeadlinePassed,
    /// What the reset asks for cannot be; the reason stands in the message.
    ResetImpossible,
    /// The reset ended half way, and is not taken up again; what is known of it stands in the message.
    ResetInterrupted,
    /// A reset with this requestId ended before; another one needs another.
    RequestIdUsed,
    /// A reset is carried out only where the record of it is kept: in Kubernetes.
    NoRecordKept,
    /// The topic was created.
    TopicCreated,
    /// The topic existed before and now belongs to this object.
    TopicAdopted,
    /// Partitions were added.
    PartitionsAdded,
    /// Configs were changed.
    ConfigChanged,
    /// The topic was deleted.
    TopicDeleted,
    /// The object was let go, and the topic was left as it is.
    TopicRetained,
    /// Offsets were committed for a group that had none.
    OffsetsProvisioned,
    /// The group was deleted.
    GroupDeleted,
    /// The object was let go, and the group was left as it is.
    GroupRetained,
    /// The object was let go, since the cluster is gone.
    ClusterGone,
    /// The object was let go and nothing was deleted, since the brokers stayed unreachable.
    DeletionGivenUp,
    /// The Kubernetes API refused or failed a request.
    KubernetesError,
}

/// The list as a Markdown table, for docs/operator.md.
#[must_use]
pub fn reasons_markdown() -> String {
    let rows = Reason::ALL
        .iter()
        .map(|it| format!("| `{}` | {} |\n", it.as_str(), it.doc()));
    format!(
        "| Reason | Meaning |\n|---|---|\n{}",
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "cargo test -p keelson-crds -->\n";
    const END: &str = "<!-- end of reasons -->";

    #[test]
    fn every_reason_is_a_word_with_a_sentence() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(
                word.len() <= 128 && word.bytes().all(|it| it.is_ascii_alphanumeric()),
                "{word}"
            );
            assert!(
                reason.doc().ends_with('.') && reason.doc().len() > 10,
                "{word}: {}",
                reason.doc()
            );
        }
    }

    /// `KEELSON_BLESS=1` writes the table instead.
    #[test]
    fn the_documented_list_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operator.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let begin = text.find(BEGIN).unwrap() + BEGIN.len();
        let end = text.find(END).unwrap();
        let fresh = format!("{}{}{}", &text[..begin], reasons_markdown(), &text[end..]);
        if std::env::var_os("KEELSON_BLESS").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        } else {
            assert!(
                text == fresh,
                "docs/operator.md is stale: run with KEELSON_BLESS=1"
            );
        }
    }
}
