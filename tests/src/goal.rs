//! Goals of measurements, in lines that other programs read.

/// Prints whether a goal is met: `goal NAME VALUE UNIT BOUND met|missed`.
pub fn goal(name: &str, value: f64, unit: &str, at_most: f64) {
    let verdict = if value <= at_most { "met" } else { "missed" };
    anstream::println!("goal {name} {value:.3} {unit} {at_most} {verdict}");
}

/// The same for what should be large.
pub fn goal_at_least(name: &str, value: f64, unit: &str, at_least: f64) {
    let verdict = if value >= at_least { "met" } else { "missed" };
    anstream::println!("goal {name} {value:.3} {unit} {at_least} {verdict}");
}
