//! Sessions as the daemon has them: real holder processes, real terminals, real programs.

mod daemon;
mod flood;
mod hostile;
mod life;
mod screen;
mod support;
mod typing;
mod viewers;
