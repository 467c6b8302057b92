//! One line of the table: a figure, what it is compared with, the aim, and whether it is met.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Figure {
    pub row: String,
    /// None when it could not be measured; `note` then says why.
    pub figure: Option<f64>,
    pub unit: String,
    /// Lowest and highest of the runs, where there were several.
    pub spread: Option<(f64, f64)>,
    pub compared_with: String,
    pub reference: Option<f64>,
    pub ratio: Option<f64>,
    pub aim: String,
    pub met: Option<bool>,
    pub note: String,
}

/// What is aimed at: a bound on the ratio to the reference, or on the figure itself.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtMost(f64),
    AtLeast(f64),
}

pub enum Output {
    Terminal,
    Markdown,
}

/// Several measurements of one thing.
#[derive(Debug, Clone)]
pub struct Runs(Vec<f64>);

impl Runs {
    /// None for no runs.
    pub fn new(mut runs: Vec<f64>) -> Option<Self> {
        runs.sort_by(f64::total_cmp);
        (!runs.is_empty()).then_some(Self(runs))
    }

    pub fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub fn median(&self) -> f64 {
        let (below, above) = (self.0[(self.0.len() - 1) / 2], self.0[self.0.len() / 2]);
        f64::midpoint(below, above)
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::new(self.0.iter().map(|v| f(*v)).collect()).expect("as many runs as before")
    }

    fn spread(&self) -> Option<(f64, f64)> {
        (self.0.len() > 1).then(|| (self.0[0], self.0[self.0.len() - 1]))
    }
}

impl Figure {
    /// A figure beside what the machine, or another program, does in the same run.
    pub fn compared(row: &str, unit: &str, runs: &Runs, compared_with: &str, reference: f64, aim: Aim) -> Self {
        let ratio = runs.median() / reference;
        let mut figure = Self::alone(row, unit, runs, aim);
        (figure.compared_with, figure.reference, figure.ratio) = (compared_with.to_owned(), Some(reference), Some(ratio));
        (figure.aim, figure.met) = aim.judge(runs.median(), Some(ratio), unit);
        figure
    }

    /// A figure with an aim of its own.
    pub fn alone(row: &str, unit: &str, runs: &Runs, aim: Aim) -> Self {
        let (text, met) = aim.judge(runs.median(), None, unit);
        Self {
            row: row.to_owned(),
            figure: Some(runs.median()),
            unit: unit.to_owned(),
            spread: runs.spread(),
            compared_with: String::new(),
            reference: None,
            ratio: None,
            aim: text,
            met,
            note: String::new(),
        }
    }

    pub fn missing(row: &str, error: &anyhow::Error) -> Self {
        let mut figure = Self::alone(row, "", &Runs::one(f64::NAN), Aim::AtMost(f64::NAN));
        (figure.figure, figure.met, figure.aim, figure.note) = (None, None, String::new(), format!("{error:#}"));
        figure
    }

    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn cells(&self) -> [String; 6] {
        let spread = self.spread.map(|(low, high)| format!(" ({} … {})", number(low), number(high))).unwrap_or_default();
        let figure = self.figure.map_or("n/a".to_owned(), |f| format!("{} {}{spread}", number(f), self.unit));
        let reference = self.reference.map_or(String::new(), |r| format!("{}: {} {}", self.compared_with, number(r), self.unit));
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "",
        };
        [self.row.clone(), figure, reference, self.ratio.map_or(String::new(), |r| format!("{r:.2}")), self.aim.clone(), met.to_owned()]
    }
}

impl Aim {
    fn judge(self, figure: f64, ratio: Option<f64>, unit: &str) -> (String, Option<bool>) {
        match self {
            Self::RatioAtLeast(aim) => (format!("≥ {aim} of it"), ratio.map(|r| r >= aim)),
            Self::RatioAtMost(aim) => (format!("≤ {aim} of it"), ratio.map(|r| r <= aim)),
            Self::AtMost(aim) => (format!("≤ {} {unit}", number(aim)), Some(figure <= aim)),
            Self::AtLeast(aim) => (format!("≥ {} {unit}", number(aim)), Some(figure >= aim)),
        }
    }
}

const HEAD: [&str; 6] = ["row", "figure (lowest … highest)", "compared with", "ratio", "aim", "met"];

/// The table, then the notes of the rows that have one.
pub fn table(figures: &[Figure], output: Output) -> String {
    let rows: Vec<[String; 6]> = figures.iter().map(Figure::cells).collect();
    let lines = match output {
        Output::Markdown => markdown(&rows),
        Output::Terminal => aligned(&rows),
    };
    let notes = figures.iter().filter(|f| !f.note.is_empty()).map(|f| format!("{}: {}", f.row, f.note));
    lines.into_iter().chain(std::iter::once(String::new())).chain(notes).map(|l| l + "\n").collect()
}

fn markdown(rows: &[[String; 6]]) -> Vec<String> {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let head = [line(&HEAD.map(str::to_owned)), "|---|---|---|---|---|---|".to_owned()];
    head.into_iter().chain(rows.iter().map(|r| line(r))).collect()
}

fn aligned(rows: &[[String; 6]]) -> Vec<String> {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..HEAD.len()).map(|c| all().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let line =
        |r: &[String; 6]| r.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect::<Vec<_>>().join("  ").trim_end().to_owned();
    all().map(line).collect()
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        let digits = if value.abs() >= 10.0 {
            1
        } else if value.abs() >= 1.0 {
            2
        } else {
            3
        };
        return format!("{value:.digits$}");
    }
    let plain = format!("{value:.0}");
    let (sign, digits) = plain.strip_prefix('-').map_or(("", plain.as_str()), |d| ("-", d));
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or_default()).collect();
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in
            [(0.0234, "0.023"), (1.5, "1.50"), (12.34, "12.3"), (999.6, "1,000"), (1_234_567.0, "1,234,567"), (-1234.0, "-1,234")]
        {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn the_table_says_whether_aims_are_met() {
        let runs = Runs::new(vec![30.0, 10.0, 20.0]).unwrap();
        let figures = [
            Figure::compared("a", "rows/s", &runs, "parse", 50.0, Aim::RatioAtLeast(0.5)),
            Figure::alone("b", "MB", &Runs::one(61.0), Aim::AtMost(60.0)),
            Figure::missing("c", &anyhow::anyhow!("no such command")).noted("no such command"),
        ];
        let expected = "| row | figure (lowest … highest) | compared with | ratio | aim | met |\n|---|---|---|---|---|---|\n\
            | a | 20.0 rows/s (10.0 … 30.0) | parse: 50.0 rows/s | 0.40 | ≥ 0.5 of it | not met |\n\
            | b | 61.0 MB |  |  | ≤ 60.0 MB | not met |\n\
            | c | n/a |  |  |  |  |\n\nc: no such command\n";
        assert_eq!(table(&figures, Output::Markdown), expected);
    }
}
