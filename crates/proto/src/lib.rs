//! Pure: everything an Offhook node decides, with no socket, file, clock, thread or ambient randomness. Its shell is `offhook-node`.
//!
//! Time, randomness and input are arguments; storage is a synchronous trait; what is to be done comes back as data. The
//! same inputs give the same outputs, bit by bit, so the simulator runs this very code by the thousand.
//!
//! From the bottom up: [`wire`] (canonical bytes), [`crypto`], [`store`], [`identity`]; then [`history`] (logs and their order) and
//! [`rooms`] (membership and keys); [`keeper`] (sealed entries kept for others), [`files`] (files under way); [`peer`] composes them and is the only module that knows all.

pub mod crypto;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod identity;
pub mod keeper;
pub mod overlay;
pub mod peer;
pub mod rooms;
pub mod store;
pub mod sync;
pub mod wire;
