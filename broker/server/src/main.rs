//! `keelson-broker`: the broker and its offline tools in one program. See `keelson_broker::cli`.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    keelson_broker::cli::main()
}
