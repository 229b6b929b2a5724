//! A small Azure and a small Kubernetes that do at once what they are asked, and fail where they are told
//! to, and the one who acts on them.

use super::super::super::claim::Written;
use super::super::super::known::{Answer, Failed};
use super::*;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nothing was done.
    Before,
    /// All was done, and nobody heard.
    After,
    /// Nothing was done, and it is no use to try it again soon.
    Forbidden,
    /// All was done, and the controller died: the next one knows nothing.
    Crash,
}

/// Azure, Kubernetes, and the one who acts.
pub(super) struct Stage {
    pub claim: Claim,
    pub known: Known,
    pub before: Option<Claim>,
    pub mode: Mode,
    pub now: Duration,
    pub identity: Option<String>,
    pub credentials: Vec<Credential>,
    pub owner: Option<Arc<str>>,
    pub created: usize,
    pub calls: Vec<Action>,
    pub fault: Option<(usize, Fault)>,
    pub gone: bool,
}

impl Stage {
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            known: Known::default(),
            before: None,
            mode: Mode::Serve,
            now: Duration::from_secs(1000),
            identity: None,
            credentials: Vec::new(),
            owner: None,
            created: 0,
            calls: Vec::new(),
            fault: None,
            gone: false,
        }
    }

    pub fn next(&mut self) -> Next {
        let settings = settings();
        let leaving = self.claim.deleting || self.mode != Mode::Serve;
        let before = self.before.replace(self.claim.clone());
        let claim = self.claim.clone().with(self.known.written.as_ref());
        self.known
            .notice(before.as_ref(), &claim, leaving, &settings, self.now);
        next(Facts {
            claim: &claim,
            known: &self.known,
            settings: &settings,
            mode: self.mode,
            now: self.now,
        })
    }

    /// Steps until nothing is to be done, waiting at most so long in all.
    pub fn settle(&mut self, patience: Duration) -> Next {
        let end = self.now + patience;
        for _ in 0..200 {
            let next = self.next();
            match &next.action {
                Some(action) => self.act(action),
                None => match next.again.filter(|again| *again <= end && !self.gone) {
                    Some(again) => self.now = again,
                    None => return next,
                },
            }
            self.now += Duration::from_millis(200);
        }
        panic!("never settles: {:?}", self.calls);
    }

    pub fn act(&mut self, action: &Action) {
        let fault = self.fault.filter(|(at, _)| *at == self.calls.len());
        self.calls.push(action.clone());
        let fault = fault.map(|(_, fault)| fault);
        let failed = |transient| {
            Err(Failed {
                reason: "Unavailable".into(),
                message: "in words".into(),
                retry_after: None,
                transient,
            })
        };
        let claim = self.claim.clone();
        match fault {
            Some(Fault::Before) => self.known.learn(action, failed(true), &claim, self.now),
            Some(Fault::Forbidden) => self.known.learn(action, failed(false), &claim, self.now),
            Some(Fault::After) => {
                self.done(action);
                self.known.learn(action, failed(true), &claim, self.now);
            }
            Some(Fault::Crash) => {
                self.done(action);
                (self.known, self.before) = (Known::default(), None);
            }
            None => {
                let answer = self.done(action);
                self.known.learn(action, Ok(answer), &claim, self.now);
            }
        }
    }

    fn write(&mut self) -> Answer {
        self.claim.version += 1;
        Answer::Object(Written {
            version: self.claim.version,
            held: self.claim.held,
            owners: self.claim.owners.clone(),
        })
    }

    fn shown(&self) -> Option<Shown> {
        self.identity.clone().map(|tag| Shown {
            existence: Existence::Exists {
                client_id: None,
                principal_id: None,
                tenant_id: None,
            },
            tag: Some(tag),
        })
    }

    fn done(&mut self, action: &Action) -> Answer {
        let ours = self.identity.as_ref() == Some(&tag());
        match action {
            Action::ReadSpec => Answer::Spec(Some(Arc::new(spec()))),
            Action::LookForOwner(_) => Answer::Owner(self.owner.clone()),
            Action::WriteOwner(to) => {
                self.claim.owners = to.iter().map(|(_, uid)| uid.clone()).collect();
                self.write()
            }
            Action::Hold => {
                self.claim.held = true;
                self.write()
            }
            Action::Release(stays) => {
                assert!(stays.is_some() || !ours, "lost");
                self.claim.held = false;
                self.gone = self.claim.deleting;
                self.write()
            }
            Action::Read(_) => Answer::Identity(self.shown()),
            Action::Create(made, _, with) => {
                assert!(self.claim.held, "created before the finalizer was written");
                assert_eq!((made, with), (&id(), &tag()));
                assert!(self.identity.is_none(), "another's overwritten");
                self.identity = Some(with.clone());
                self.created += 1;
                Answer::Identity(self.shown())
            }
            Action::Delete(_) => {
                assert!(ours || self.identity.is_none(), "another's deleted");
                self.identity = None;
                self.credentials.clear();
                Answer::Done
            }
            Action::ReadCredentials(_) => Answer::Credentials(self.credentials.clone()),
            Action::PutCredential(_, credential) => {
                assert!(ours, "another's changed");
                self.credentials.retain(|one| one.name != credential.name);
                self.credentials.push(credential.clone());
                Answer::Done
            }
            Action::DeleteCredential(_, name) => {
                assert!(ours, "another's changed");
                self.credentials.retain(|one| one.name != *name);
                Answer::Done
            }
        }
    }
}
