use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::*;
use crate::controller::apply::Rates;
use crate::model::ids::Guid;

/// Azure that answers as it is told, and writes down when it was asked.
#[derive(Clone, Default)]
struct Azure(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: BTreeMap<ArmId, Result<Guid, ArmError>>,
    asked: Vec<(Instant, ArmId)>,
    running: usize,
    most: usize,
    takes: Duration,
}

impl Knows for Azure {
    async fn identity(&self, id: &ArmId, _: Duration) -> Result<IdentityShown, ArmError> {
        let takes = {
            let mut state = self.0.lock();
            state.asked.push((Instant::now(), id.clone()));
            state.running += 1;
            state.most = state.most.max(state.running);
            state.takes
        };
        tokio::time::sleep(takes).await;
        let mut state = self.0.lock();
        state.running -= 1;
        let answer = state.answers.get(id).cloned();
        let answer = answer.unwrap_or_else(|| Err(ArmError::new(ArmErrorKind::NotFound, "none")));
        answer.map(|principal| IdentityShown {
            id: id.clone(),
            client_id: None,
            principal_id: Some(principal),
            tenant_id: None,
            location: String::new(),
            tags: BTreeMap::new(),
        })
    }
}

impl Azure {
    fn answers(&self, id: &ArmId, answer: Result<Guid, ArmError>) {
        self.0.lock().answers.insert(id.clone(), answer);
    }

    fn asked(&self, id: &ArmId) -> usize {
        let state = self.0.lock();
        state.asked.iter().filter(|(_, of)| of == id).count()
    }
}

struct Scene {
    azure: Azure,
    board: Arc<Board>,
    wanted: watch::Sender<Arc<BTreeSet<ArmId>>>,
    doubted: mpsc::Sender<ArmId>,
}

fn id(name: &str) -> ArmId {
    let id = format!(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    );
    id.parse().unwrap()
}

fn principal(last: u8) -> Guid {
    format!("11111111-1111-4111-8111-1111111111{last:02x}")
        .parse()
        .unwrap()
}

/// Time is the test's: it moves on where everybody waits.
fn scene(names: &[&str], before: impl FnOnce(&Azure)) -> Scene {
    let azure = Azure::default();
    before(&azure);
    let wanted: BTreeSet<ArmId> = names.iter().map(|name| id(name)).collect();
    let (wanted, receiver) = watch::channel(Arc::new(wanted));
    let (doubted, doubts) = mpsc::channel(16);
    let board = Arc::<Board>::default();
    let identities = Identities {
        arm: azure.clone(),
        paces: Arc::new(Paces::new(Rates::default())),
        board: board.clone(),
        wanted: receiver,
        doubted: doubts,
        interval: Duration::from_mins(5),
        now: || Duration::ZERO,
    };
    tokio::spawn(identities.run());
    Scene {
        azure,
        board,
        wanted,
        doubted,
    }
}

impl Scene {
    async fn after(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn principal(&self, name: &str) -> Option<Guid> {
        match self.board.existence(&id(name)) {
            Existence::Exists { principal_id, .. } => principal_id,
            Existence::Unknown | Existence::Missing => None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_exists_is_known_at_once_and_its_replacement_within_an_interval() {
    let scene = scene(&["i"], |azure| azure.answers(&id("i"), Ok(principal(1))));
    scene.after(1).await;
    assert_eq!(scene.principal("i"), Some(principal(1)));
    scene.azure.answers(&id("i"), Ok(principal(2)));
    scene.after(400).await;
    assert_eq!(scene.principal("i"), Some(principal(2)));
    assert!(scene.azure.asked(&id("i")) <= 3);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_missing_and_then_made_is_found() {
    let scene = scene(&["i"], |_| {});
    scene.after(1).await;
    assert_eq!(scene.board.existence(&id("i")), Existence::Missing);
    scene.azure.answers(&id("i"), Ok(principal(1)));
    scene.after(40).await;
    assert_eq!(scene.principal("i"), Some(principal(1)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_no_absence() {
    let scene = scene(&["i", "j"], |azure| {
        azure.answers(&id("i"), Ok(principal(1)));
    });
    scene.after(1).await;
    let forbidden = ArmError::new(ArmErrorKind::Forbidden, "no role");
    scene.azure.answers(&id("i"), Err(forbidden.clone()));
    scene.azure.answers(&id("k"), Err(forbidden));
    scene
        .wanted
        .send_modify(|wanted| Arc::make_mut(wanted).extend([id("k")]));
    scene.after(400).await;
    assert_eq!(
        scene.principal("i"),
        Some(principal(1)),
        "what was known stays"
    );
    assert_eq!(scene.board.existence(&id("k")), Existence::Unknown);
    for name in ["i", "k"] {
        let trouble = scene.board.trouble(&id(name)).unwrap();
        assert_eq!(&*trouble.reason, "Forbidden");
        assert!(trouble.message.contains("no role"));
    }
    assert_eq!(scene.board.trouble(&id("j")), None);
    scene.azure.answers(&id("i"), Ok(principal(1)));
    scene.after(700).await;
    assert_eq!(scene.board.trouble(&id("i")), None, "it is over");
}

#[tokio::test(start_paused = true)]
async fn a_resource_group_that_is_gone_took_its_identities_with_it() {
    let gone = |code: &str| {
        let mut error = ArmError::new(ArmErrorKind::GroupOrSubscriptionGone, "not found");
        code.clone_into(&mut error.code);
        error
    };
    let scene = scene(&["group", "subscription"], |azure| {
        azure.answers(&id("group"), Err(gone("ResourceGroupNotFound")));
        azure.answers(&id("subscription"), Err(gone("SubscriptionNotFound")));
    });
    scene.after(1).await;
    assert_eq!(scene.board.existence(&id("group")), Existence::Missing);
    assert!(scene.board.trouble(&id("group")).is_some());
    assert_eq!(
        scene.board.existence(&id("subscription")),
        Existence::Unknown
    );
    assert!(scene.board.trouble(&id("subscription")).is_some());
}

#[tokio::test(start_paused = true)]
async fn few_are_asked_for_at_once_and_all_in_the_end() {
    let names: Vec<String> = (0..500).map(|n| format!("i{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let scene = scene(&names, |azure| {
        azure.0.lock().takes = Duration::from_millis(50);
        for name in &names {
            azure.answers(&id(name), Ok(principal(1)));
        }
    });
    scene.after(120).await;
    let known = scene.board.existences();
    assert_eq!(known.len(), 500);
    assert!(
        known
            .values()
            .all(|of| matches!(of, Existence::Exists { .. }))
    );
    let state = scene.azure.0.lock();
    assert!(state.most <= MOST, "{}", state.most);
    assert_eq!(state.asked.len(), 500, "each once");
}

#[tokio::test(start_paused = true)]
async fn no_identity_of_a_throttled_subscription_is_asked_for_too_early() {
    let scene = scene(&["i"], |azure| {
        let mut throttled = ArmError::new(ArmErrorKind::Throttled, "slow down");
        throttled.retry_after = Some(Duration::from_mins(2));
        azure.answers(&id("i"), Err(throttled));
    });
    scene.after(1).await;
    let until = scene.board.trouble(&id("i")).unwrap().until;
    assert_eq!(until, Some(Duration::from_mins(2)));
    scene
        .wanted
        .send_modify(|wanted| Arc::make_mut(wanted).extend([id("j")]));
    scene.doubted.send(id("i")).await.unwrap();
    scene.after(118).await;
    assert_eq!(
        (scene.azure.asked(&id("i")), scene.azure.asked(&id("j"))),
        (1, 0)
    );
    scene.after(5).await;
    assert_eq!(
        (scene.azure.asked(&id("i")), scene.azure.asked(&id("j"))),
        (2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_looked_into_soon_and_what_nobody_names_is_forgotten() {
    let scene = scene(&["i"], |azure| azure.answers(&id("i"), Ok(principal(1))));
    scene.after(1).await;
    scene.azure.answers(&id("i"), Ok(principal(2)));
    scene.doubted.send(id("i")).await.unwrap();
    scene.after(20).await;
    assert_eq!(scene.principal("i"), Some(principal(2)));
    scene.wanted.send_replace(Arc::default());
    scene.after(1).await;
    assert!(scene.board.existences().is_empty());
    scene.after(1000).await;
    assert_eq!(scene.azure.asked(&id("i")), 2);
}
