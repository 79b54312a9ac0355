//! `keelson-broker`: the broker and its offline tools in one program. See `keelson_broker::cli`.

mod allocator;

fn main() -> std::process::ExitCode {
    keelson_broker::cli::main()
}
