//! Paths between a device and its hub that die without a word.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hub_core::admission::Access;
use hub_sdk::{LinkError, PayError, PushEvent};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::*;

/// A router between devices and the hub that can forget what it knew.
struct Router {
    address: SocketAddr,
    inside: Arc<UdpSocket>,
    hub: SocketAddr,
    /// The socket towards the hub of each device's socket; `None` if nothing
    /// of it passes any more.
    flows: Arc<Mutex<HashMap<SocketAddr, Option<Flow>>>>,
}

struct Flow {
    outside: Arc<UdpSocket>,
    back: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.back.abort();
    }
}

async fn flow(hub: SocketAddr, inside: Arc<UdpSocket>, device: SocketAddr) -> Flow {
    let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    outside.connect(hub).await.unwrap();
    let from = Arc::clone(&outside);
    let back = tokio::spawn(async move {
        let mut packet = [0; 2048];
        loop {
            if let Ok(len) = from.recv(&mut packet).await {
                let _ = inside.send_to(&packet[..len], device).await;
            }
        }
    });
    Flow {
        outside,
        back: back.abort_handle(),
    }
}

impl Router {
    async fn start(hub: SocketAddr) -> Self {
        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let router = Self {
            address: inside.local_addr().unwrap(),
            inside: Arc::clone(&inside),
            hub,
            flows: Arc::default(),
        };
        let flows = Arc::clone(&router.flows);
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((len, device)) = inside.recv_from(&mut packet).await {
                let known = flows.lock().unwrap().contains_key(&device);
                if !known {
                    let made = flow(hub, Arc::clone(&inside), device).await;
                    flows.lock().unwrap().insert(device, Some(made));
                }
                let outside = flows.lock().unwrap()[&device]
                    .as_ref()
                    .map(|f| Arc::clone(&f.outside));
                if let Some(outside) = outside {
                    let _ = outside.send(&packet[..len]).await;
                }
            }
        });
        router
    }

    /// From now on nothing of what has passed before passes; new ones do.
    fn cut(&self) {
        for flow in self.flows.lock().unwrap().values_mut() {
            *flow = None;
        }
    }

    /// Shows each device to the hub under another port, and drops what comes
    /// for the old one: a NAT that was started again, another network.
    async fn rebind(&self) {
        let devices: Vec<_> = self.flows.lock().unwrap().keys().copied().collect();
        for device in devices {
            let moved = flow(self.hub, Arc::clone(&self.inside), device).await;
            self.flows.lock().unwrap().insert(device, Some(moved));
        }
    }
}

/// A hub, and a device that knows only the way through the router.
async fn behind_a_router(options: ClientOptions) -> (FakeHub, Router, DeviceClient) {
    let hub = FakeHub::start();
    let router = Router::start(hub.devices.local_addr()).await;
    let identity = DeviceIdentity::generate().unwrap();
    let registration = hub.registration(&identity);
    hub.devices.apply(&registration, Access::Granted);
    let enrolled = Enrolled::new(registration, vec![router.address]);
    let device = DeviceClient::new(identity, enrolled, options).unwrap();
    within(device.hello()).await.unwrap();
    (hub, router, device)
}

/// A device that waits for answers far longer than for signs of life.
fn patient() -> ClientOptions {
    ClientOptions {
        request_timeout: Duration::from_secs(25),
        ..options()
    }
}

fn is_silent(error: &PayError) -> bool {
    matches!(error, PayError::NoAnswer(LinkError::Silent))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_path_that_died_before_it_finds_another() {
    let (_hub, router, device) = behind_a_router(patient()).await;
    router.cut();
    let payment = device.next_payment(sale(10));
    let error = within(device.pay_once(&payment)).await.unwrap_err();
    assert!(is_silent(&error), "{error:?}");
    within(device.pay_once(&payment)).await.unwrap();
    router.cut();
    // By itself.
    within(device.pay(&device.next_payment(sale(20)))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_a_path_that_dies_in_a_payment_is_noticed_and_the_answer_fetched() {
    let (hub, router, device) = behind_a_router(patient()).await;
    hub.book.lock().unwrap().swallow = 1;
    let payment = device.next_payment(sale(10));
    let (client, asked) = (device.clone(), payment.clone());
    let paying = tokio::spawn(async move { client.pay_once(&asked).await });
    hub.wait_asked(1).await;
    router.cut();
    let error = within(paying).await.unwrap().unwrap_err();
    assert!(is_silent(&error), "{error:?}");
    within(device.pay(&payment)).await.unwrap();
    assert_eq!(hub.book.lock().unwrap().payments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_takes_its_time_is_not_taken_for_dead() {
    let options = ClientOptions {
        request_timeout: Duration::from_secs(5),
        ..options()
    };
    let (hub, _router, device) = behind_a_router(options).await;
    hub.book.lock().unwrap().swallow = 1;
    let payment = device.next_payment(sale(10));
    let error = within(device.pay_once(&payment)).await.unwrap_err();
    assert!(
        matches!(error, PayError::NoAnswer(LinkError::TimedOut)),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_reaches_a_device_whose_address_changed_unnoticed() {
    let (hub, router, device) = behind_a_router(options()).await;
    let mut pushes = device.pushes();
    router.rebind().await;
    // To the old address; nobody asks anything.
    hub.devices.push_policy(7);
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::Policy(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_path_died_while_nobody_asked_connects_again_by_itself() {
    let (hub, router, device) = behind_a_router(options()).await;
    let mut pushes = device.pushes();
    router.cut();
    let version = AtomicU64::new(0);
    let pushing = async {
        loop {
            hub.devices.push_policy(version.fetch_add(1, Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // A keep-alive, and the idle timeout behind it, come before.
    tokio::select! {
        push = tokio::time::timeout(Duration::from_secs(90), pushes.recv()) => {
            assert!(matches!(push, Ok(Ok(PushEvent::Policy(_)))), "{push:?}");
        }
        () = pushing => {}
    }
}
