//! The samples of a soak as one SVG: a panel per column, time from left to right, values from 0 up.

use super::sample::{COLUMNS, Sample};
use std::fmt::Write;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 110.0;
const GAP: f64 = 46.0;
const PER_ROW: usize = 3;

pub fn draw(samples: &[Sample], rate: u64) -> String {
    let rows = COLUMNS.len().div_ceil(PER_ROW);
    let (width, height) = (PER_ROW as f64 * (WIDTH + GAP) + GAP, rows as f64 * (HEIGHT + GAP) + 2.0 * GAP);
    let end = samples.last().map_or(1.0, |s| s.seconds.max(1.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{GAP}\" y=\"28\" font-size=\"16\">{rate} rows/s for {:.0} minutes</text>\n",
        end / 60.0
    );
    for (i, column) in COLUMNS.iter().enumerate() {
        let left = GAP + (i % PER_ROW) as f64 * (WIDTH + GAP);
        let top = 1.5 * GAP + (i / PER_ROW) as f64 * (HEIGHT + GAP);
        let points: Vec<(f64, f64)> = samples.iter().map(|s| (s.seconds / end, s.values[i])).collect();
        panel(&mut svg, column.name, left, top, &points);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, name: &str, left: f64, top: f64, points: &[(f64, f64)]) {
    let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
    let last = points.last().map_or(0.0, |p| p.1);
    let scale = if most > 0.0 { HEIGHT / most } else { 0.0 };
    let line: Vec<String> = points.iter().map(|(t, v)| format!("{:.1},{:.1}", left + t * WIDTH, top + HEIGHT - v * scale)).collect();
    write!(
        svg,
        "<text x=\"{left}\" y=\"{}\">{name}: most {most:.1}, last {last:.1}</text>\n\
         <rect x=\"{left}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#bbb\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#1769aa\" stroke-width=\"1.2\"/>\n",
        top - 5.0,
        line.join(" ")
    )
    .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_touches_the_top_of_its_panel() {
        let mut svg = String::new();
        panel(&mut svg, "a", 10.0, 20.0, &[(0.0, 0.0), (0.5, 4.0), (1.0, 2.0)]);
        assert!(svg.contains("a: most 4.0, last 2.0"), "{svg}");
        assert!(svg.contains("points=\"10.0,130.0 220.0,20.0 430.0,75.0\""), "{svg}");
    }
}
