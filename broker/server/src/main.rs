//! `keelson-broker`: see `keelson_broker::cli`.

fn main() {}
