//! The handshakes of a link (`PROTOCOL 5` and `8`): who asks when, what is answered, and what is refused.

use std::time::Duration;

use happy_wire::Code;
use happy_wire::packet::Packet;
use rand_core::CryptoRng;

use super::{AFTER_REFUSAL, Context, HINTS, Hello, Link, MAX_PENDING, PENDING_FOR, Pending, REPEAT_FIRST, Side};
use crate::channels::Numbering;
use crate::event::Event;
use crate::session::call_event;
use crate::suite::{NoWelcome, RefusalReason, Suite};

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
        let Some((initiator, hello)) = cx.suite.start(cx.rng, bundle, cx.life) else {
            return self.on_refused(cx, RefusalReason::UnknownPrekey);
        };
        let packet = self.wrap(&Packet::Hello(&hello));
        self.post(packet.clone());
        self.last_hello = Some(cx.now);
        self.hello = Hello::Sent { initiator, packet, again: cx.now + REPEAT_FIRST, wait: REPEAT_FIRST };
    }

    pub(super) fn handle_welcome<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, welcome: &[u8]) {
        let Hello::Sent { initiator, .. } = &self.hello else { return };
        let Some((established, confirm)) = cx.suite.welcome(cx.rng, initiator, welcome) else {
            *cx.dropped += 1;
            return;
        };
        if established.peer != self.peer {
            *cx.dropped += 1;
            return;
        }
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
        match cx.suite.answer(cx.rng, &self.record, hello, cx.life) {
            Ok((responder, welcome)) => {
                let welcome = self.wrap(&Packet::Welcome(&welcome));
                self.post(welcome.clone());
                if self.pending.len() >= MAX_PENDING {
                    self.pending.remove(0);
                }
                self.pending.push(Pending { responder, hello: hello.to_vec(), welcome, until: cx.now + PENDING_FOR });
            }
            Err(NoWelcome::Refuse(reason)) if self.refusals.take(cx.now) => {
                let refused = cx.suite.refuse(reason, hello);
                let packet = self.wrap(&Packet::Refused(&refused));
                self.post(packet);
            }
            Err(_) => *cx.dropped += 1,
        }
    }

    pub(super) fn handle_confirm<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, confirm: &[u8]) {
        self.expire_pending(cx.now);
        if let Some(session) = self.session.as_mut().filter(|_| self.confirmed_by == confirm) {
            // The initiator repeats it because it has not heard of us since; this is what it waits for.
            session.receive.owe_now();
            return;
        }
        let established = self.pending.iter().rev().find_map(|pending| cx.suite.confirm(&pending.responder, confirm));
        match established.filter(|established| established.peer == self.peer) {
            Some(established) => {
                self.pending.clear();
                self.confirmed_by = confirm.to_vec();
                self.begin(cx, established, Numbering::Responder);
            }
            None => *cx.dropped += 1,
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

    pub(super) fn lose_calls<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let mut heard = Vec::new();
        self.calls.on_gone(&mut heard);
        cx.events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
    }

    pub(super) fn expire_pending(&mut self, now: Duration) {
        self.pending.retain(|pending| pending.until > now);
    }
}
