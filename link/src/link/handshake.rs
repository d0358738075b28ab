//! The handshakes of a link (`PROTOCOL 5` and `8`): who asks when, what is answered, and what is refused.

use std::time::Duration;

use happy_wire::Code;
use happy_wire::packet::Packet;
use rand_core::CryptoRng;

use super::{
    AFTER_REFUSAL, ATTEMPTS, Context, HINTS, Hello, Link, MAX_PENDING, PENDING_FOR, Pending, REPEAT_FIRST, Side,
};
use crate::channels::Numbering;
use crate::event::Event;
use crate::planted::{self, Bug};
use crate::session::call_event;
use crate::suite::{HelloPlan, NoWelcome, PairSecrets, RefusalReason, Suite, Welcomed};

impl<S: Suite> Link<S> {
    /// A Hello shall be sent, but not too soon after the last one.
    pub(super) fn want_hello(&mut self, now: Duration) {
        if matches!(self.side, Side::Initiator(_)) && matches!(self.hello, Hello::Idle) {
            self.hello = Hello::Later(self.last_hello.map_or(now, |last| now.max(last + HINTS)));
        }
    }

    pub(super) fn start_wanted_hello<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let (Hello::Later(at), Side::Initiator(bundle)) = (&self.hello, &self.side) else { return };
        if *at > cx.now || !self.here {
            return;
        }
        let resumes = self.session.as_ref().map(|session| session.origin);
        let plan = HelloPlan { life: cx.life, resumes };
        let unknown = self.unknown_there.as_ref().is_some_and(|it| S::same_secret(it, &self.secrets.current));
        let previous = self.secrets.previous.as_ref().filter(|_| unknown);
        let secret = previous.unwrap_or(&self.secrets.current).clone();
        let Some((initiator, hello)) = cx.suite.start(cx.rng, bundle, &secret, plan) else {
            return self.on_refused(cx, RefusalReason::UnknownPrekey);
        };
        let packet = self.wrap(&Packet::Hello(&hello));
        self.post(packet.clone());
        self.last_hello = Some(cx.now);
        self.hello =
            Hello::Sent { initiator, secret, resumes, packet, again: cx.now + REPEAT_FIRST, wait: REPEAT_FIRST };
    }

    pub(super) fn handle_welcome<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, welcome: &[u8]) {
        let Hello::Sent { initiator, secret, resumes, .. } = &self.hello else { return };
        let Some((established, confirm)) = cx.suite.welcome(cx.rng, initiator, welcome) else {
            *cx.dropped += 1;
            return;
        };
        if established.peer != self.peer {
            *cx.dropped += 1;
            return;
        }
        // What is to go on must be what was meant, and still there.
        let session = self.session.as_ref().map(|session| session.origin);
        if established.resumes && (session.is_none() || session != *resumes) {
            self.hello = Hello::Idle;
            return self.want_hello(cx.now);
        }
        let next = PairSecrets { current: established.next_secret.clone(), previous: Some(secret.clone()) };
        self.next_secret = Some((established.session, next));
        (self.unknown_there, self.refused) = (None, 0);
        self.hello = Hello::Idle;
        self.confirm = Some(self.wrap(&Packet::Confirm(&confirm)));
        self.begin(cx, established, Numbering::Initiator);
    }

    pub(super) fn handle_hello<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, hello: &[u8]) {
        self.expire_pending(cx.now);
        if let Some(pending) = self.pending.iter().find(|pending| pending.hello == hello) {
            let welcome = pending.welcome.clone();
            return self.post(welcome);
        }
        if !self.hellos.take(cx.now) {
            *cx.dropped += 1;
            return;
        }
        let session = self.session.as_ref().map(|session| session.origin);
        match cx.suite.answer(cx.rng, &self.record, &self.secrets, hello, cx.life, session) {
            Ok(Welcomed { responder, welcome, resumes, secret }) => {
                self.unknown_hellos.clear();
                let welcome = self.wrap(&Packet::Welcome(&welcome));
                self.post(welcome.clone());
                if self.pending.len() >= MAX_PENDING {
                    self.pending.remove(0);
                }
                self.pending.push(Pending {
                    responder,
                    secret,
                    resumes,
                    hello: hello.to_vec(),
                    welcome,
                    until: cx.now + PENDING_FOR,
                });
            }
            Err(NoWelcome::Refuse(reason)) if self.refusals.take(cx.now) => {
                if reason == RefusalReason::UnknownSecret && self.was_the_last_attempt(hello) {
                    cx.events.push_back(Event::StaleDevice { peer: self.peer });
                }
                let refused = cx.suite.refuse(reason, hello);
                let packet = self.wrap(&Packet::Refused(&refused));
                self.post(packet);
            }
            Err(NoWelcome::SendBundle(bundle)) if self.refusals.take(cx.now) => {
                let packet = self.wrap(&Packet::Bundle(&bundle));
                self.post(packet);
            }
            Err(_) => *cx.dropped += 1,
        }
    }

    /// An initiator tries what it has twice, in Hellos that differ. One that comes again because the refusal was lost is the same.
    fn was_the_last_attempt(&mut self, hello: &[u8]) -> bool {
        let seen = &mut self.unknown_hellos;
        if seen.len() >= usize::from(ATTEMPTS) || seen.iter().any(|before| before == hello) {
            return false;
        }
        seen.push(hello.to_vec());
        seen.len() == usize::from(ATTEMPTS)
    }

    /// `PROTOCOL 3`: our copy of the bundle is too old, and this is the new one, if it is signed by its owner.
    pub(super) fn handle_bundle<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, bytes: &[u8]) {
        let (Hello::Sent { .. }, Side::Initiator(current)) = (&self.hello, &self.side) else {
            *cx.dropped += 1;
            return;
        };
        let Some(newer) = cx.suite.newer_bundle(current, bytes) else {
            *cx.dropped += 1;
            return;
        };
        self.side = Side::Initiator(newer);
        cx.events.push_back(Event::NewBundle { peer: self.peer });
        self.hello = Hello::Later(cx.now);
        self.start_wanted_hello(cx);
    }

    pub(super) fn handle_confirm<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, confirm: &[u8]) {
        self.expire_pending(cx.now);
        if let Some(session) = self.session.as_mut().filter(|_| self.confirmed_by == confirm) {
            // The initiator repeats it because it has not heard of us since; this is what it waits for.
            session.receive.owe_now();
            return;
        }
        let session = self.session.as_ref().map(|session| session.origin);
        let established = self.pending.iter().rev().find_map(|pending| {
            let established = cx.suite.confirm(&pending.responder, confirm)?;
            // The session that was to go on may have ended since.
            let stands = !established.resumes || pending.resumes == session;
            stands.then(|| (established, pending.secret.clone()))
        });
        match established.filter(|(established, _)| established.peer == self.peer) {
            Some((established, used)) => {
                let secrets = PairSecrets { current: established.next_secret.clone(), previous: Some(used) };
                self.store(cx, established.session, secrets);
                self.pending.clear();
                self.confirmed_by = confirm.to_vec();
                self.begin(cx, established, Numbering::Responder);
            }
            None => *cx.dropped += 1,
        }
    }

    /// Hands secrets to the application, which stores them.
    fn store<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, session: [u8; 16], secrets: PairSecrets<S::Secret>) {
        if planted::is(Bug::TellsBeforeStoring)
            && let Some(running) = &mut self.session
        {
            running.secret_stored = Some(session);
        }
        self.to_store = Some((session, secrets));
        cx.events.push_back(Event::PairSecrets { peer: self.peer, session });
    }

    /// The other side has stored the secret that the handshake of `session` left.
    pub(super) fn on_peer_stored<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, session: &[u8; 16]) {
        let secrets = match self.side {
            Side::Initiator(_) => {
                let Some((_, next)) = self.next_secret.take_if(|(of, _)| of == session) else { return };
                next
            }
            Side::Responder if self.stored == Some(*session) && self.secrets.previous.is_some() => {
                PairSecrets { current: self.secrets.current.clone(), previous: None }
            }
            Side::Responder => return,
        };
        self.store(cx, *session, secrets);
    }

    /// The responder has stored the secret of the handshake of `session`, and now this side has too: nothing leads back to the one
    /// before, unless a later handshake was confirmed with it meanwhile. That one may yet take the place of this at the responder.
    pub(super) fn forget_older_secret<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, session: [u8; 16]) {
        let current = self.secrets.current.clone();
        if matches!(&self.hello, Hello::Sent { secret, .. } if !S::same_secret(secret, &current)) {
            self.hello = Hello::Idle;
            self.want_hello(cx.now);
        }
        if self.next_secret.is_none() || planted::is(Bug::ForgetsSecretsEarly) {
            // From here on nothing is begun with it, so it does not matter when the disk has forgotten it.
            self.secrets.previous = None;
            self.unknown_there = None;
            self.store(cx, session, PairSecrets { current, previous: None });
        }
    }

    pub(super) fn handle_refused<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, refused: &[u8]) {
        let Hello::Sent { initiator, .. } = &self.hello else { return };
        match cx.suite.refusal(&self.peer, initiator, refused) {
            Some(reason) => self.on_refused(cx, reason),
            None => *cx.dropped += 1,
        }
    }

    pub(super) fn on_refused<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, reason: RefusalReason) {
        if reason == RefusalReason::UnknownSecret && self.try_other_secret() {
            self.hello = Hello::Later(cx.now);
            return self.start_wanted_hello(cx);
        }
        cx.events.push_back(Event::Refused { peer: self.peer, reason });
        self.last_hello = Some(cx.now);
        if reason == RefusalReason::Revoked {
            self.hello = Hello::Never;
            self.end(cx, Code::REMOVED, "this device was removed", true);
            self.lose_calls(cx);
        } else {
            self.hello = Hello::Later(cx.now + AFTER_REFUSAL);
        }
    }

    /// The responder does not know the secret of our Hello. False when each that it could know was tried twice: between two refusals it may
    /// have stored what another handshake left, but no more than once, for it accepts no Hello meanwhile.
    fn try_other_secret(&mut self) -> bool {
        let Hello::Sent { secret, .. } = &self.hello else { return false };
        let current = &self.secrets.current;
        if planted::is(Bug::TriesOneSecret) {
            return false;
        }
        // The responder was killed before it could store the current one, or after an older one was stored once more.
        let other = S::same_secret(secret, current) && self.secrets.previous.is_some();
        self.unknown_there = other.then(|| current.clone());
        self.refused = (self.refused + 1) % ATTEMPTS;
        self.refused != 0
    }

    pub(super) fn lose_calls<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let mut heard = Vec::new();
        self.calls.on_gone(&mut heard);
        cx.events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
    }

    pub(super) fn expire_pending(&mut self, now: Duration) {
        self.pending.retain(|pending| pending.until > now);
    }
}
