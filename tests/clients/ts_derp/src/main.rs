//! Two clients of one relay at 127.0.0.1 send each other packets, and 20 MB one way. Once for each
//! line of standard input, with connections of their own; each time "ok" is printed, or why not.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use ts_derp::{DefaultClient, Error, IpUsage, ServerConnInfo, TlsValidationConfig};
use ts_keys::NodeKeyPair;

const PACKET: usize = 20_000;
const PACKETS: usize = 1_000;
/// ts_derp takes frames of 64 KiB at most, the sender's key among them.
const LARGEST: usize = (64 << 10) - 32;
/// Packets under way, which the relay queues for a peer before it drops any.
const WINDOW: usize = 16;

fn content(number: usize) -> Vec<u8> {
    (0..PACKET).map(|place| (place * 31 + number * 17) as u8).collect()
}

async fn talk(relay: &[ServerConnInfo]) -> Result<String, Error> {
    let (a_key, b_key) = (NodeKeyPair::random(), NodeKeyPair::random());
    let a = DefaultClient::connect(relay, &a_key).await?;
    let b = DefaultClient::connect(relay, &b_key).await?;

    for size in [0, 1, 1_400, LARGEST] {
        let packet = vec![7; size];
        b.send_one(a_key.public, &packet).await?;
        let (from, got) = a.recv_one().await?;
        if from != b_key.public || got.as_ref() != packet {
            return Ok(format!("{size} bytes came as {} from {from}", got.as_ref().len()));
        }
    }
    for first in (0..PACKETS).step_by(WINDOW) {
        let numbers = first..PACKETS.min(first + WINDOW);
        for number in numbers.clone() {
            a.send_one(b_key.public, &content(number)).await?;
        }
        for number in numbers {
            let (from, got) = b.recv_one().await?;
            if from != a_key.public || got.as_ref() != content(number) {
                return Ok(format!("packet {number} came as another"));
            }
        }
    }
    Ok("ok".to_owned())
}

#[tokio::main]
async fn main() {
    let port = std::env::args().nth(1).expect("usage: derptalk PORT");
    let relay = [ServerConnInfo {
        hostname: "localhost".to_owned(),
        ipv4: IpUsage::FixedAddr(Ipv4Addr::LOCALHOST),
        ipv6: IpUsage::Disable,
        tls_validation_config: TlsValidationConfig::InsecureForTests,
        https_port: port.parse().expect("PORT is a number"),
        stun_port: None,
        stun_only: false,
        supports_port_80: false,
    }];
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = lines.next_line().await {
        match tokio::time::timeout(Duration::from_secs(90), talk(&relay)).await {
            Ok(Ok(told)) => println!("{told}"),
            Ok(Err(error)) => println!("{error}"),
            Err(_) => println!("not done within 90 s"),
        }
    }
}
