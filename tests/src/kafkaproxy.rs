//! A way to a broker that fails as it is told, one request at a time.
//!
//! Owns the faults that a broker under test cannot be asked for: an answer that makes no sense, a change that is only
//! pretended, a connection that ends before or after a request had its effect. It knows frames and API keys, and one byte
//! of one request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use kafka_protocol::messages::ApiKey;

/// An API key in the head of a request.
pub type Api = i16;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaFault {
    /// Nothing special.
    Pass,
    /// The connection ends, and the broker never hears of it.
    Cut,
    /// The broker does it, and the connection ends before the answer.
    Lose,
    /// The answer is rubbish.
    Garble,
    /// IncrementalAlterConfigs: the broker only checks it, and the answer looks as if it had been done.
    Pretend,
}

type Rule = Box<dyn FnMut(Api) -> KafkaFault + Send>;

/// See the module.
pub struct KafkaProxy {
    address: String,
    rule: Arc<Mutex<Rule>>,
}

impl KafkaProxy {
    /// Listens on a free port; everything passes.
    pub fn start(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| KafkaFault::Pass)));
        let (serving, broker) = (Arc::clone(&rule), broker.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (rule, broker) = (Arc::clone(&serving), broker.clone());
                // A connection that breaks is what this is for.
                std::thread::spawn(move || drop(serve(&rule, client, &broker)));
            }
        });
        Self { address, rule }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What becomes of requests from now on.
    pub fn rule(&self, rule: impl FnMut(Api) -> KafkaFault + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// Everything passes again.
    pub fn calm(&self) {
        self.rule(|_| KafkaFault::Pass);
    }
}

/// Whether a request of this API changes the cluster.
pub fn is_order(api: Api) -> bool {
    [
        ApiKey::CreateTopics,
        ApiKey::CreatePartitions,
        ApiKey::IncrementalAlterConfigs,
        ApiKey::DeleteTopics,
    ]
    .iter()
    .any(|it| *it as i16 == api)
}

fn serve(rule: &Mutex<Rule>, mut client: TcpStream, broker: &str) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(broker)?;
    upstream.set_nodelay(true)?;
    client.set_nodelay(true)?;
    loop {
        let mut request = frame(&mut client)?;
        let api = i16::from_be_bytes([request[4], request[5]]);
        let fault = rule.lock().unwrap_or_else(PoisonError::into_inner)(api);
        match fault {
            KafkaFault::Cut => return Ok(()),
            KafkaFault::Pretend if api == ApiKey::IncrementalAlterConfigs as i16 => {
                assert_eq!(
                    request[6..8],
                    [0, 1],
                    "the version whose form is known here"
                );
                // The last two bytes: validate_only, and no tagged fields.
                let at = request.len() - 2;
                request[at] = 1;
            }
            KafkaFault::Pass | KafkaFault::Lose | KafkaFault::Garble | KafkaFault::Pretend => {}
        }
        upstream.write_all(&request)?;
        let mut answer = frame(&mut upstream)?;
        match fault {
            KafkaFault::Lose => return Ok(()),
            // Behind the length and the correlation id.
            KafkaFault::Garble => answer[8..].fill(0xff),
            KafkaFault::Pass | KafkaFault::Pretend | KafkaFault::Cut => {}
        }
        client.write_all(&answer)?;
    }
}

/// One frame with its length.
fn frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let bytes = usize::try_from(i32::from_be_bytes(length))
        .map_err(|_| std::io::Error::other("a negative length"))?;
    let mut frame = length.to_vec();
    frame.resize(4 + bytes, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
