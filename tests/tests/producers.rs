//! Idempotent producers: a batch sent again is answered with its first offset and stored once, also after kill -9.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::InitProducerIdRequest;
use keelson_tests::Broker;
use keelson_tests::records::{fresh_batch, payload, seal_batch};
use keelson_tests::wire::Wire;

/// A batch of two records of this producer.
fn of_producer(producer: (i64, i16), sequence: i32) -> Vec<u8> {
    let values: Vec<Vec<u8>> = (0..2)
        .map(|n| payload(64, 1, sequence as u64 + n))
        .collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let mut batch = fresh_batch(&values);
    batch[43..51].copy_from_slice(&producer.0.to_be_bytes());
    batch[51..53].copy_from_slice(&producer.1.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    seal_batch(&mut batch);
    batch
}

fn new_producer(wire: &mut Wire) -> (i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let answer = wire.call(4, &request);
    assert_eq!(answer.error_code, 0);
    (answer.producer_id.0, answer.producer_epoch)
}

#[test]
fn repeats_are_answered_with_the_first_offset_across_restarts() {
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    let producer = new_producer(&mut wire);
    for batch_number in 0..8 {
        let sent = of_producer(producer, batch_number * 2);
        assert_eq!(
            wire.produce("orders", 0, sent),
            Ok(i64::from(batch_number) * 2)
        );
    }
    for restart in ["none", "kill -9", "stop"] {
        match restart {
            "kill -9" => {
                broker.kill9();
                broker.restart();
            }
            "stop" => {
                broker.stop();
                broker.restart();
            }
            _ => {}
        }
        let mut wire = Wire::connect(broker.bootstrap());
        // The last five batches are remembered, as in Kafka.
        for batch_number in 3..8 {
            let again = wire.produce("orders", 0, of_producer(producer, batch_number * 2));
            assert_eq!(again, Ok(i64::from(batch_number) * 2), "after {restart}");
        }
        let gap = wire.produce("orders", 0, of_producer(producer, 40));
        assert_eq!(
            gap,
            Err(ResponseError::OutOfOrderSequenceNumber),
            "after {restart}"
        );
        assert_eq!(
            wire.list_offset("orders", 0, -1),
            Ok(16),
            "after {restart}: refused batches leave no hole"
        );
    }
    let mut wire = Wire::connect(broker.bootstrap());
    assert_eq!(
        wire.produce("orders", 0, of_producer(producer, 16)),
        Ok(16),
        "and it goes on"
    );
    assert_eq!(wire.read_all("orders", 0, 0).expect("readable").len(), 18);
    assert_ne!(
        new_producer(&mut wire).0,
        producer.0,
        "ids are not given twice"
    );
}
