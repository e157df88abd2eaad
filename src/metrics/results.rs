//! The results of a run, read back from what `coreflow bench` wrote or from one percentile file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use simd_json::OwnedValue;
use simd_json::prelude::ValueAsScalar;

use super::curve::Curve;
use super::hgrm;
use super::manifest::Manifest;

/// Largest report that is read, bytes: one has some thousand.
const REPORT_BYTES_MAX: u64 = 4 << 20;
/// What two percentile files measured when their names do not agree on it.
const UNNAMED: &str = "latency";

/// Results that cannot be used: nothing of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}; {advice}")]
pub struct ResultsError {
    /// The file or folder, with the line where there is one.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// What was measured of one component.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Component {
    /// Its latencies, where they were written down.
    pub curve: Option<Curve>,
    /// The numbers of its report by name; words and truths are left out.
    pub figures: BTreeMap<String, f64>,
}

/// What a run measured, and under which conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// The conditions of each suite; none for a percentile file.
    pub manifests: BTreeMap<String, Manifest>,
    /// What was measured, by component.
    pub components: BTreeMap<String, Component>,
}

/// A report as `coreflow bench` writes it; what else stands in it is skipped.
#[derive(Deserialize)]
struct Report {
    manifest: Manifest,
    results: Vec<ReportedComponent>,
}

#[derive(Deserialize)]
struct ReportedComponent {
    component: String,
    #[serde(flatten)]
    figures: BTreeMap<String, OwnedValue>,
}

/// Reads the two sides of a comparison: two percentile files or two bench folders.
///
/// The curves of two percentile files are one component, named after the files when both have
/// the same name.
///
/// # Errors
/// When one is missing, they are not of a kind, or one of them cannot be read.
pub fn read_pair(a: &Path, b: &Path) -> Result<[Results; 2], ResultsError> {
    match (is_folder(a)?, is_folder(b)?) {
        (true, true) => Ok([read_folder(a)?, read_folder(b)?]),
        (false, false) => {
            let name = if a.file_stem() == b.file_stem() { name_of(a) } else { UNNAMED.into() };
            let read = |file| Ok(Results::of_curve(&name, read_curve(file)?));
            Ok([read(a)?, read(b)?])
        }
        (a_is_folder, _) => {
            let (folder, file) = if a_is_folder { (a, b) } else { (b, a) };
            Err(ResultsError {
                place: file.display().to_string(),
                problem: format!("a file, and {} is a folder", folder.display()),
                advice: "name two .hgrm files or two bench folders",
            })
        }
    }
}

/// Reads every report and every percentile file of a folder.
///
/// # Errors
/// When one of them cannot be read, two reports tell of the same component, or there is none.
pub fn read_folder(folder: &Path) -> Result<Results, ResultsError> {
    let mut results = Results::default();
    for file in files_of(folder)? {
        let name = name_of(&file);
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => results.add_report(&name, read_report(&file)?, &file)?,
            Some("hgrm") => {
                results.components.entry(name).or_default().curve = Some(read_curve(&file)?);
            }
            _ => {}
        }
    }
    if results.components.is_empty() {
        return Err(ResultsError {
            place: folder.display().to_string(),
            problem: "holds no SUITE.json and no COMPONENT.hgrm".into(),
            advice: "name a folder that `coreflow bench all --out DIR` wrote",
        });
    }
    Ok(results)
}

impl Results {
    /// The results of one percentile file.
    pub fn of_curve(component: &str, curve: Curve) -> Self {
        let measured = Component { curve: Some(curve), figures: BTreeMap::new() };
        Self { components: BTreeMap::from([(component.into(), measured)]), ..Self::default() }
    }

    fn add_report(&mut self, suite: &str, report: Report, file: &Path) -> Result<(), ResultsError> {
        self.manifests.insert(suite.into(), report.manifest);
        for ReportedComponent { component, figures } in report.results {
            let figures: BTreeMap<_, _> = figures
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.cast_f64()?)))
                .filter(|(_, value)| value.is_finite())
                .collect();
            let measured = self.components.entry(component.clone()).or_default();
            if !measured.figures.is_empty() {
                return Err(ResultsError {
                    place: file.display().to_string(),
                    problem: format!("tells of {component}, and so does another report beside it"),
                    advice: "leave the reports of one run in the folder",
                });
            }
            measured.figures = figures;
        }
        Ok(())
    }
}

fn read_curve(file: &Path) -> Result<Curve, ResultsError> {
    hgrm::read(file).map_err(|error| ResultsError {
        place: error.place,
        problem: error.problem,
        advice: match file.extension() {
            Some(extension) if extension == "json" => "name the folder that holds the report",
            _ => "measure again with `coreflow bench`, or name another file",
        },
    })
}

fn read_report(file: &Path) -> Result<Report, ResultsError> {
    let explain =
        |problem, advice| ResultsError { place: file.display().to_string(), problem, advice };
    let mut text = Vec::new();
    let size = File::open(file)
        .and_then(|opened| opened.take(REPORT_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|error| unreadable(file, &error))?;
    if size as u64 > REPORT_BYTES_MAX {
        let problem = format!("larger than {REPORT_BYTES_MAX} bytes, so no report");
        return Err(explain(problem, "move it out of the folder"));
    }
    simd_json::from_slice(&mut text).map_err(|error| {
        let problem = format!("not a report of `coreflow bench`: {error}");
        explain(problem, "measure again, or move it out of the folder")
    })
}

fn is_folder(path: &Path) -> Result<bool, ResultsError> {
    fs::metadata(path).map(|found| found.is_dir()).map_err(|error| unreadable(path, &error))
}

/// In the order of their names, so that errors do not depend on the file system.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, ResultsError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| unreadable(folder, &error))?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> ResultsError {
    ResultsError {
        place: path.display().to_string(),
        problem: format!("cannot be read: {error}"),
        advice: match error.kind() {
            io::ErrorKind::NotFound => "check the path, or measure with `coreflow bench all`",
            _ => "make it readable, or name another",
        },
    }
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;

    /// A folder of one test that disappears with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("coreflow-results-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("the temporary directory is writable");
            Self(path)
        }

        fn with(self, name: &str, text: &str) -> Self {
            fs::write(self.0.join(name), text).expect("the folder is writable");
            self
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const CURVE: &str = "Value Percentile TotalCount 1/(1-Percentile)\n\n1.5 0.5 1 2\n2 1.0 2\n";

    fn report(results: &str) -> String {
        let manifest = simd_json::to_string(&manifest()).expect("plain fields");
        format!("{{\"manifest\":{manifest},\"results\":[{results}]}}")
    }

    fn refusal(folder: &Scratch) -> String {
        let error = read_folder(&folder.0).expect_err("it is to be refused").to_string();
        error.replace(&*folder.0.to_string_lossy(), "DIR")
    }

    #[test]
    fn a_folder_joins_the_figures_of_its_reports_with_its_curves() {
        let text = report(
            r#"{"component":"message_latency","p50_ms":1.5,"count":2,"loop":"open","goal_met":true}"#,
        );
        let folder = Scratch::new("joined")
            .with("latency.json", &text)
            .with("message_latency.hgrm", CURVE)
            .with("notes.txt", "not read");
        let results = read_folder(&folder.0).expect("as the bench writes it");
        assert_eq!(results.manifests["latency"], manifest());
        let component = &results.components["message_latency"];
        assert_eq!(component.curve.as_ref().map(Curve::max_ms), Some(2.0));
        let figures: Vec<_> = component.figures.iter().map(|(name, &of)| (&**name, of)).collect();
        assert_eq!(figures, [("count", 2.0), ("p50_ms", 1.5)], "words and truths are no numbers");
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_refused_with_the_file_and_what_to_do() {
        let empty = Scratch::new("empty").with("notes.txt", "{}");
        assert!(
            refusal(&empty).starts_with("DIR: holds no SUITE.json and no COMPONENT.hgrm; name")
        );
        let foreign = Scratch::new("foreign").with("package.json", "{\"name\":\"x\"}");
        let error = refusal(&foreign);
        assert!(
            error.starts_with("DIR/package.json: not a report of `coreflow bench`: "),
            "{error}"
        );
        assert!(error.ends_with("; measure again, or move it out of the folder"), "{error}");
        let cut = Scratch::new("cut").with("latency.json", "{\"manifest\": {");
        assert!(refusal(&cut).starts_with("DIR/latency.json: not a report"));
        let broken = Scratch::new("broken").with("x.hgrm", &CURVE.replace("1.5", "fast"));
        assert!(refusal(&broken).starts_with("DIR/x.hgrm:3: Value is \"fast\""));
        let one = report(r#"{"component":"c","throughput_msg_per_s":1.0}"#);
        let twice = Scratch::new("twice").with("a.json", &one).with("b.json", &one);
        assert!(refusal(&twice).starts_with("DIR/b.json: tells of c, and so does another"));
    }

    #[test]
    fn a_pair_is_of_one_kind_and_both_are_there() {
        let folder = Scratch::new("pair").with("a.hgrm", CURVE).with("b.hgrm", CURVE);
        let (a, b) = (folder.0.join("a.hgrm"), folder.0.join("b.hgrm"));
        let [one, other] = read_pair(&a, &b).expect("two curves");
        assert_eq!(one, other);
        assert!(one.components.contains_key(UNNAMED), "the names of the files differ");
        let [same, _] = read_pair(&a, &a).expect("two curves");
        assert!(same.components.contains_key("a"));
        let mixed = read_pair(&folder.0, &a).expect_err("a folder and a file").to_string();
        assert!(mixed.contains("a.hgrm: a file, and "), "{mixed}");
        let missing = read_pair(&a, Path::new("/nowhere/b")).expect_err("not there").to_string();
        assert!(missing.starts_with("/nowhere/b: cannot be read: "), "{missing}");
        assert!(missing.ends_with("; check the path, or measure with `coreflow bench all`"));
    }
}
