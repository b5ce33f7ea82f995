//! QR codes (ISO/IEC 18004), drawn for a terminal or as a picture.
//!
//! Black on white in both, with the four modules of white around it that the
//! standard asks for: scanners differ in whether they read anything else.

use qrcode::render::svg;
use qrcode::types::QrError as Refused;
use qrcode::{Color, EcLevel, QrCode};

/// The white around a code, in modules (ISO/IEC 18004 §6.3.8).
const QUIET: usize = 4;

/// How large one module is in a picture, in units of SVG.
const MODULE: u32 = 8;

/// Black on white, whatever the terminal's colours are: 16 and 231 of the 256
/// are black and white in every theme.
const INK: &str = "\u{1b}[38;5;16;48;5;231m";

/// The terminal's own colours again.
const PLAIN: &str = "\u{1b}[0m";

/// Why there is no QR code of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QrError {
    /// Longer than the largest QR code holds.
    #[error(
        "the code has {0} characters, more than a QR code holds; give fewer addresses with \
         `advertise` under [devices], or carry the code as text"
    )]
    TooLong(usize),
}

/// Half blocks: a character is two modules, one above the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Coloured by escape sequences, for a terminal: black on white.
    Coloured,
    /// No escape sequences, for a file or another program: what is white is
    /// drawn, which is right on a dark background.
    WhiteDrawn,
}

/// A QR code.
#[derive(Clone)]
pub struct Qr(QrCode);

impl Qr {
    /// The smallest QR code that holds the text, with the least error
    /// correction: a screen is not torn or dirty, and small modules are what
    /// phones fail at.
    ///
    /// # Errors
    /// [`QrError::TooLong`].
    pub fn of(text: &str) -> Result<Self, QrError> {
        QrCode::with_error_correction_level(text, EcLevel::L)
            .map(Self)
            .map_err(|_: Refused| QrError::TooLong(text.chars().count()))
    }

    /// How many columns of a terminal it takes.
    pub fn columns(&self) -> usize {
        self.0.width() + 2 * QUIET
    }

    /// Drawn with half blocks, one line a row of characters.
    pub fn half_blocks(&self, ink: Ink) -> String {
        let side = self.columns();
        let mut drawn = String::new();
        for row in (0..side).step_by(2) {
            if ink == Ink::Coloured {
                drawn.push_str(INK);
            }
            for column in 0..side {
                // Below the last row of an odd number is the background.
                let lower = row + 1 < side;
                let up = self.is_dark(column, row);
                let down = lower && self.is_dark(column, row + 1);
                let filled = match ink {
                    Ink::Coloured => (up, down),
                    Ink::WhiteDrawn => (!up, lower && !down),
                };
                drawn.push(match filled {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            if ink == Ink::Coloured {
                drawn.push_str(PLAIN);
            }
            drawn.push('\n');
        }
        drawn
    }

    /// A picture to show or to print (SVG 1.1).
    pub fn svg(&self) -> String {
        self.0
            .render()
            .module_dimensions(MODULE, MODULE)
            .dark_color(svg::Color("#000"))
            .light_color(svg::Color("#fff"))
            .build()
    }

    /// A module, counted with the white around the code.
    fn is_dark(&self, column: usize, row: usize) -> bool {
        let within = |at: usize| at.checked_sub(QUIET).filter(|at| *at < self.0.width());
        within(column)
            .zip(within(row))
            .is_some_and(|(x, y)| self.0[(x, y)] == Color::Dark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scanner reads, given how bright each point is.
    fn scanned(side: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
        const SCALE: usize = 4;
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(side * SCALE, side * SCALE, |x, y| {
            if is_dark(x / SCALE, y / SCALE) { 0 } else { 255 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    /// The modules of what was drawn: dark where a character is filled.
    fn filled(drawn: &str) -> Vec<Vec<bool>> {
        let rows = drawn.lines().map(|line| {
            let line = line.trim_start_matches(INK).trim_end_matches(PLAIN);
            let upper = line.chars().map(|c| matches!(c, '█' | '▀')).collect();
            let lower = line.chars().map(|c| matches!(c, '█' | '▄')).collect();
            [upper, lower]
        });
        rows.flatten().collect()
    }

    fn code() -> String {
        hub_protocol::EnrolmentCode {
            tls_key: None,
            hub: hub_protocol::HubId([7; 32]),
            token: [9; 16],
            enrol_addresses: vec!["192.0.2.10:7412".to_owned()],
            addresses: vec!["192.0.2.10:7411".to_owned(), "[2001:db8::1]:7411".to_owned()],
        }
        .to_string()
    }

    #[test]
    fn what_is_drawn_on_a_terminal_scans_as_the_code() {
        let qr = Qr::of(&code()).unwrap();
        assert!(qr.columns() <= 80, "{} columns", qr.columns());
        let modules = filled(&qr.half_blocks(Ink::Coloured));
        assert_eq!(scanned(qr.columns(), |x, y| modules[y][x]), code());
        let white = filled(&qr.half_blocks(Ink::WhiteDrawn));
        assert_eq!(scanned(qr.columns(), |x, y| !white[y][x]), code());
    }

    #[test]
    fn the_picture_scans_as_the_code() {
        let qr = Qr::of(&code()).unwrap();
        let svg = qr.svg();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let module = usize::try_from(MODULE).unwrap();
        let mut dark = vec![vec![false; qr.columns()]; qr.columns()];
        for square in path.split('M').skip(1) {
            let numbers: Vec<usize> = square
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            let [x, y, width, height, ..] = numbers[..] else {
                panic!("{square}");
            };
            for row in y..y + height {
                for column in x..x + width {
                    dark[row / module][column / module] = true;
                }
            }
        }
        assert_eq!(scanned(qr.columns(), |x, y| dark[y][x]), code());
    }

    #[test]
    fn the_longest_code_is_drawn_and_what_is_too_long_is_said() {
        let longest = "A".repeat(hub_protocol::enrolment::MAX_CODE_TEXT);
        assert!(Qr::of(&longest).is_ok());
        let error = Qr::of(&"A".repeat(4297)).map(|qr| qr.columns()).unwrap_err();
        assert_eq!(error, QrError::TooLong(4297));
        assert!(error.to_string().contains("4297 characters"));
    }
}
