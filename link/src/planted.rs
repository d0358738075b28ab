//! Bugs that can be planted into the link, to see that the simulation finds each (`cargo xtask sim`).
//!
//! Without the feature `planted`, which only tests enable, none of this is in a program: [`is`] is a constant then.

/// A mistake that a person could make here.
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "those of the driver are planted there"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A frame behind a gap is acknowledged as if the gap were closed.
    AcknowledgesTheGap,
    /// A frame behind a gap is delivered at once.
    DeliversEarly,
    /// A frame that came before is taken for the next one.
    DeliversTwice,
    /// Nothing is sent again when the wait for an acknowledgement is over.
    NeverSendsAgain,
    /// New keys begin a new count of received frames.
    CountsAnewWithNewKeys,
    /// What was on its way when the keys changed is sent again as it was sealed.
    KeepsOldSeals,
    /// What was consumed raises no limit.
    RaisesNoLimit,
    /// The limit of the other side is not looked at.
    IgnoresTheLimit,
    /// A larger limit is granted for what came, not for what was consumed.
    GrantsUnconsumed,
    /// Closing a channel drops what was accepted before.
    ClosesBeforeData,
    /// A new session counts channels from the start.
    ReusesChannelNumbers,
    /// Every record ends its message.
    CutsMessages,
    /// Nobody is told that a channel can be written to again.
    ForgetsWritable,
    /// Data goes before the record that opens its channel.
    OpensLate,
    /// The channels of a session that ends are not closed.
    LeavesChannelsOpen,
    /// What ran is forgotten with the session.
    ForgetsWhatRan,
    /// Calls that wait are not asked again in a new session.
    ForgetsCalls,
    /// A call that was sent to a former life of the callee is sent to the next.
    AsksTheNextLife,
    /// An answer finds its call by its number, whoever asked.
    AnswersTheNextLife,
    /// The other side is asked once whether it knows the session.
    ProbesOnce,
    /// A Hello is sent once.
    SaysHelloOnce,
    /// Nobody looks whether the relay still answers.
    TrustsTheRelay,
    /// Every login has the same epoch.
    KeepsItsEpoch,
    /// After a full queue the link waits for good.
    HoldsForever,
    /// The other side is told that a secret is stored before it is.
    TellsBeforeStoring,
    /// The older secret is forgotten although a handshake with it was confirmed.
    ForgetsSecretsEarly,
    /// The older secret is not tried when the newer is unknown.
    TriesOneSecret,

    // Those of the driver for tokio.
    /// Who was told to wait with an event is not told that the session with all that waited is gone.
    ForgetsWhoWaits,
    /// The driver is not woken when somebody has asked for something.
    DoesNotWake,
    /// An event that the full queue has no room for is dropped.
    DropsWhatDoesNotFit,
    /// Who waits to send is not woken when a channel is closed.
    WakesNoSenders,
    /// What was gathered for one write stays where it is.
    NeverFlushes,
    /// The calls that wait when the driver ends go on waiting.
    LeavesCallsWaiting,
    /// Nobody is told that the driver has ended.
    EndsUnheard,
    /// No timer is set.
    SetsNoTimer,
}

impl Bug {
    /// All that are planted below the drivers.
    #[cfg(feature = "planted")]
    pub const ALL: [Bug; 27] = [
        Bug::AcknowledgesTheGap,
        Bug::DeliversEarly,
        Bug::DeliversTwice,
        Bug::NeverSendsAgain,
        Bug::CountsAnewWithNewKeys,
        Bug::KeepsOldSeals,
        Bug::RaisesNoLimit,
        Bug::IgnoresTheLimit,
        Bug::GrantsUnconsumed,
        Bug::ClosesBeforeData,
        Bug::ReusesChannelNumbers,
        Bug::CutsMessages,
        Bug::ForgetsWritable,
        Bug::OpensLate,
        Bug::LeavesChannelsOpen,
        Bug::ForgetsWhatRan,
        Bug::ForgetsCalls,
        Bug::AsksTheNextLife,
        Bug::AnswersTheNextLife,
        Bug::ProbesOnce,
        Bug::SaysHelloOnce,
        Bug::TrustsTheRelay,
        Bug::KeepsItsEpoch,
        Bug::HoldsForever,
        Bug::TellsBeforeStoring,
        Bug::ForgetsSecretsEarly,
        Bug::TriesOneSecret,
    ];

    /// Those that only a simulation of the drivers can find.
    #[cfg(feature = "planted")]
    pub const OF_THE_DRIVER: [Bug; 8] = [
        Bug::ForgetsWhoWaits,
        Bug::DoesNotWake,
        Bug::DropsWhatDoesNotFit,
        Bug::WakesNoSenders,
        Bug::NeverFlushes,
        Bug::LeavesCallsWaiting,
        Bug::EndsUnheard,
        Bug::SetsNoTimer,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread has that bug, and no other.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread has that bug.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this thread has that bug: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
