//! The directory: where is a device now? Asked of those to whom lines are open anyway, so that a look-up opens no flow.
//!
//! A recursive look-up by bounded flooding (Lv et al. 2002, *Search and replication in unstructured peer-to-peer networks*): who is asked and does not know asks [`FANOUT`] of its own
//! peers, up to [`HOPS`] lines away; answers go back the way that the question came. There is no place to ask and nobody to trust: each answer is opened and checked by whoever asked,
//! so that a liar can only be silent or waste a bounded number of answers. Nobody can use up the answers of others: each line may give back as many as the peers behind it could ([`answers`]).
//!
//! What a question and an answer look like, and who may understand them, is [`crate::peer`]'s; here is who passes on what to whom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::identity::DeviceId;

/// A look-up goes at most so many lines far.
pub const HOPS: u32 = 3;
/// Whoever passes a question on passes it to so many.
pub const FANOUT: usize = 3;
/// Whoever asks because somebody waits asks so many at once.
pub const ASKED: usize = 12;
/// Answers come within this time or count for nothing.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Questions under way here at most; while there are so many, further ones are not passed on.
const SEEKS_MAX: usize = 512;
/// Questions that one line may bring at once, and how soon it may bring one more.
const QUESTIONS_MAX: u32 = 16;
const QUESTION_GAP: Duration = Duration::from_secs(1);

/// Names a look-up: random, chosen by whoever asks.
pub type Token = [u8; 8];

/// How hard something is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Somebody waits: [`ASKED`] peers, [`HOPS`] lines far.
    Waited,
    /// Nobody does: [`FANOUT`] peers, two lines far.
    Spare,
}

impl Effort {
    fn asked(self) -> usize {
        match self {
            Self::Waited => ASKED,
            Self::Spare => FANOUT,
        }
    }

    /// How many lines far.
    pub fn hops(self) -> u32 {
        match self {
            Self::Waited => HOPS,
            Self::Spare => 2,
        }
    }
}

/// Who waits for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// This node, for this device.
    Own(DeviceId),
    /// The peer at the other end of a line.
    Line(DeviceId),
}

/// A question that came over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// From whom.
    pub from: DeviceId,
    /// The look-up.
    pub token: Token,
    /// How many lines far it may go, this one counted.
    pub hops: u32,
    /// The answer is known here.
    pub is_known: bool,
}

/// What to do about a question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Answer it from what is known here.
    pub answer: bool,
    /// Ask these, with one hop less.
    pub pass_to: Vec<DeviceId>,
}

#[derive(Debug)]
struct Seek {
    asker: Asker,
    /// Who was asked, and how many answers each may still give.
    asked: BTreeMap<DeviceId, usize>,
    until: Instant,
}

/// The look-ups that this node made or passes on.
#[derive(Debug, Default)]
pub struct Directory {
    seeks: BTreeMap<Token, Seek>,
    /// For each line that brought a question: how many it has used up, and since when they come back.
    questions: BTreeMap<DeviceId, (u32, Instant)>,
}

impl Directory {
    /// Begins an own look-up: whom to ask, of those to whom there are lines.
    pub fn ask(
        &mut self,
        token: Token,
        sought: DeviceId,
        effort: Effort,
        lines: &[DeviceId],
        rng: &mut impl Rng,
        now: Instant,
    ) -> Vec<DeviceId> {
        let others = lines.iter().copied().filter(|line| *line != sought).collect();
        let asked = draw(others, effort.asked(), rng);
        self.note(token, Asker::Own(sought), &asked, effort.hops(), now);
        asked
    }

    /// What to do about a question.
    pub fn on_question(&mut self, question: Question, lines: &[DeviceId], rng: &mut impl Rng, now: Instant) -> Step {
        let Question { from, token, .. } = question;
        if !self.may_ask(from, now) {
            return Step::default();
        }
        // Whoever knows says so on every way that leads here: on one of them there may be a liar.
        if question.is_known {
            return Step {
                answer: true,
                pass_to: Vec::new(),
            };
        }
        self.seeks.retain(|_, seek| seek.until > now);
        let hops = question.hops.min(HOPS);
        if hops <= 1 || self.seeks.contains_key(&token) || self.seeks.len() >= SEEKS_MAX {
            return Step::default();
        }
        let others = lines.iter().copied().filter(|line| *line != from).collect();
        let pass_to = draw(others, FANOUT, rng);
        self.note(token, Asker::Line(from), &pass_to, hops - 1, now);
        Step { answer: false, pass_to }
    }

    /// To whom an answer goes that came over a line; to nobody where it was not asked for.
    pub fn on_answer(&mut self, from: DeviceId, token: Token, now: Instant) -> Option<Asker> {
        let seek = self.seeks.get_mut(&token).filter(|seek| seek.until > now)?;
        let left = seek.asked.get_mut(&from).filter(|left| **left > 0)?;
        *left -= 1;
        Some(seek.asker)
    }

    /// A line went down.
    pub fn line_down(&mut self, line: &DeviceId) {
        self.questions.remove(line);
    }

    fn note(&mut self, token: Token, asker: Asker, asked: &[DeviceId], hops: u32, now: Instant) {
        if asked.is_empty() {
            return;
        }
        let seek = Seek {
            asker,
            asked: asked.iter().map(|line| (*line, answers(hops))).collect(),
            until: now + PATIENCE,
        };
        self.seeks.insert(token, seek);
    }

    /// Counts a question of a line; false where it has brought too many.
    fn may_ask(&mut self, line: DeviceId, now: Instant) -> bool {
        let (used, since) = self.questions.entry(line).or_insert((0, now));
        let passed = now.saturating_duration_since(*since).as_secs() / QUESTION_GAP.as_secs();
        *used = used.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
        *since += QUESTION_GAP * u32::try_from(passed).unwrap_or(u32::MAX);
        let may = *used < QUESTIONS_MAX;
        *used += u32::from(may);
        may
    }
}

/// How many answers there can be behind a line over which a question goes so many lines far: one of whoever is asked, and those of whom it asks.
pub fn answers(hops: u32) -> usize {
    (1..hops).fold(1, |behind, _| 1 + FANOUT * behind)
}

/// So many of them, by chance.
fn draw(mut of: Vec<DeviceId>, count: usize, rng: &mut impl Rng) -> Vec<DeviceId> {
    for at in 0..count.min(of.len()) {
        let left = u32::try_from(of.len() - at).unwrap_or(u32::MAX);
        // The bias of the remainder does not matter here.
        let other = at + (rng.next_u32() % left) as usize;
        of.swap(at, other);
    }
    of.truncate(count);
    of
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    fn devices(count: u8) -> Vec<DeviceId> {
        (1..=count).map(device).collect()
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([7; 32])
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn question(from: u8, token: u8, hops: u32) -> Question {
        Question {
            from: device(from),
            token: [token; 8],
            hops,
            is_known: false,
        }
    }

    fn answered(from: u8, token: u8, hops: u32) -> Question {
        Question {
            is_known: true,
            ..question(from, token, hops)
        }
    }

    #[test]
    fn a_line_gives_back_no_more_than_there_can_be_behind_it() {
        assert_eq!([1, 2, 3].map(answers), [1, 4, 13]);
        let (mut directory, now) = (Directory::default(), start());
        let asked = directory.ask([1; 8], device(99), Effort::Waited, &devices(20), &mut rng(), now);
        assert_eq!(asked.len(), ASKED);
        let answered = (0..1000).filter_map(|_| directory.on_answer(asked[0], [1; 8], now));
        assert_eq!(answered.count(), 13);
        assert_eq!(directory.on_answer(asked[1], [1; 8], now), Some(Asker::Own(device(99))));
        assert_eq!(directory.on_answer(device(98), [1; 8], now), None, "it was not asked");
        assert_eq!(
            directory.on_answer(asked[1], [2; 8], now),
            None,
            "nothing of the kind was asked"
        );
        assert_eq!(directory.on_answer(asked[1], [1; 8], now + PATIENCE), None, "too late");
    }

    #[test]
    fn a_question_is_passed_on_once_and_never_back() {
        let (mut directory, now) = (Directory::default(), start());
        let lines = devices(4);
        let step = directory.on_question(question(1, 1, 3), &lines, &mut rng(), now);
        assert_eq!(step.pass_to.len(), FANOUT);
        assert!(!step.pass_to.contains(&device(1)) && !step.answer);
        let again = directory.on_question(question(2, 1, 3), &lines, &mut rng(), now);
        assert_eq!(again, Step::default());
        let last = directory.on_question(question(1, 2, 1), &lines, &mut rng(), now);
        assert_eq!(last, Step::default());
        let known = directory.on_question(answered(1, 3, 1), &lines, &mut rng(), now);
        assert!(known.answer && known.pass_to.is_empty());
        assert_eq!(
            directory.on_answer(step.pass_to[0], [1; 8], now),
            Some(Asker::Line(device(1)))
        );
    }

    #[test]
    fn whoever_asks_without_end_is_not_heard() {
        let (mut directory, start) = (Directory::default(), start());
        let mut heard = |at: Instant, number: u32| {
            let asked = Question {
                token: u64::from(number).to_be_bytes(),
                ..answered(1, 0, 1)
            };
            directory.on_question(asked, &[], &mut rng(), at).answer
        };
        assert_eq!(
            (0..100).filter(|number| heard(start, *number)).count(),
            QUESTIONS_MAX as usize
        );
        let later = start + Duration::from_millis(2_500);
        assert_eq!((0..100).filter(|number| heard(later, *number)).count(), 2);
    }

    proptest! {
        /// Whatever is asked and answered, in whatever order: what is remembered stays small, and nobody is passed more than was asked for.
        #[test]
        fn it_stays_bounded(steps in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u32>(), any::<bool>(), 0u64..500), 0..2000)) {
            let (mut directory, mut rng, mut now) = (Directory::default(), rng(), start());
            let lines = devices(30);
            for (line, token, hops, is_answer, passed_ms) in steps {
                now += Duration::from_millis(passed_ms);
                let (from, token) = (device(line), u64::from(token).to_be_bytes());
                if is_answer {
                    directory.on_answer(from, token, now);
                } else {
                    let asked = Question { from, token, hops, is_known: false };
                    let step = directory.on_question(asked, &lines, &mut rng, now);
                    prop_assert!(step.pass_to.len() <= FANOUT && !step.pass_to.contains(&from));
                }
                prop_assert!(directory.seeks.len() <= SEEKS_MAX && directory.questions.len() <= 256);
            }
        }
    }
}
