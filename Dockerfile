# The image of `make image`, for those who have a daemon: docker build -t keelson:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin keelson-broker --bin keelson-operator --bin keelson-bench \
 && charts/image/rootfs.sh target/release /rootfs

FROM scratch
COPY --from=build /rootfs /
USER 65532:65532
EXPOSE 9092 9080 9081
CMD ["keelson-broker", "--help"]
