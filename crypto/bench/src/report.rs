//! The table and the goals.

use anstream::println;

use crate::measure::Cases;

/// A line: a name, and what it is measured by. Empty where there is nothing to compare with.
pub struct Line {
    /// What it is.
    pub name: &'static str,
    /// The cases of happy-crypto, vodozemac, and the primitives.
    pub cases: [&'static str; 3],
}

/// Prints a line for each, in microseconds, with ratios.
pub fn table(cases: &Cases, lines: &[Line]) {
    println!(
        "{:<36}{:>10}{:>12}{:>12}{:>14}{:>15}",
        "µs of CPU", "happy", "vodozemac", "primitives", "÷ vodozemac", "÷ primitives"
    );
    for Line { name, cases: [ours, rival, raw] } in lines {
        let time = |case: &str| if case.is_empty() { "–".into() } else { format!("{:.2}", cases.median(case) / 1e3) };
        let ratio = |case: &str| if case.is_empty() { "–".into() } else { format!("{:.3}", cases.ratio(ours, case)) };
        println!(
            "{name:<36}{:>10}{:>12}{:>12}{:>14}{:>15}",
            time(ours),
            time(rival),
            time(raw),
            ratio(rival),
            ratio(raw)
        );
    }
}

/// Prints whether a goal is met, and says so: `goal NAME VALUE UNIT BOUND met|missed`. Less is better in all of them.
pub fn goal(name: &str, value: f64, unit: &str, at_most: f64) -> bool {
    let met = value <= at_most;
    println!("goal {name} {value:.3} {unit} {at_most} {}", if met { "met" } else { "missed" });
    met
}
