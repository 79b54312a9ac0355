//! One file per Kafka API: each opens with its versions, what each changed, and what is left out.

pub mod api_versions;
pub mod fetch;
pub mod list_offsets;
pub mod metadata;
pub mod produce;
