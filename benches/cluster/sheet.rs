//! The measured values: a row for each figure, a column for each contestant.

use super::report::{Values, number};

pub struct Row {
    pub figure: String,
    pub unit: &'static str,
    /// One cell for each column. It is empty if the contestant has no such figure.
    pub cells: Vec<Values>,
}

pub struct Sheet {
    /// The titles of the contestants.
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    /// Figures of the raw machine, with one cell.
    pub ceilings: Vec<Row>,
}

impl Sheet {
    pub fn new(columns: Vec<String>) -> Sheet {
        Sheet { columns, rows: Vec::new(), ceilings: Vec::new() }
    }

    /// Adds the value of a round, and prints it.
    pub fn push(&mut self, column: usize, figure: &str, unit: &'static str, value: f64) {
        println!("{:20} {figure:70} {:>8} {unit}", self.columns[column], number(value));
        add(&mut self.rows, self.columns.len(), column, figure, unit, value);
    }

    /// Adds the value of a round to a figure of the raw machine, and prints it.
    pub fn push_ceiling(&mut self, figure: &str, unit: &'static str, value: f64) {
        println!("{:20} {figure:70} {:>8} {unit}", "raw", number(value));
        add(&mut self.ceilings, 1, 0, figure, unit, value);
    }

    /// Returns the median of a figure of the contestant with this title, if it was measured.
    pub fn median(&self, column: &str, figure: &str) -> Option<f64> {
        let column = self.columns.iter().position(|title| title == column)?;
        let row = self.rows.iter().find(|row| row.figure == figure)?;
        Some(&row.cells[column]).filter(|values| !values.is_empty()).map(Values::median)
    }
}

fn add(rows: &mut Vec<Row>, columns: usize, column: usize, figure: &str, unit: &'static str, value: f64) {
    let at = rows.iter().position(|row| row.figure == figure).unwrap_or_else(|| {
        rows.push(Row { figure: figure.to_owned(), unit, cells: vec![Values::default(); columns] });
        rows.len() - 1
    });
    rows[at].cells[column].push(value);
}
