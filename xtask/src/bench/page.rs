//! `docs/benchmarks.md`: an introduction, and a section for each thing that is measured.

/// Headings in the order of the page.
pub(super) const HEADINGS: [&str; 13] = [
    "W1: a middling project",
    "W2: a large base in the same registry",
    "W3: 100,000 small files",
    "W4: one file of 4 GiB",
    "W5: twenty independent stages",
    "W6: a service with `npm ci`",
    "Where nothing can be mounted",
    "Memory",
    "Start-up",
    "How cost grows",
    "Limits of the machine",
    "Machine",
    "Copying images",
];
/// What is below this within a section is written by hand, and kept when the section is measured anew.
const NOTES: &str = "### Notes";

/// A page, taken apart.
#[derive(Debug)]
pub(super) struct Page {
    introduction: String,
    /// Heading and text.
    sections: Vec<(String, String)>,
}

impl Page {
    /// Takes a page apart.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = text.split("\n## ");
        let introduction = parts.next().unwrap_or_default().trim().to_owned();
        let sections = parts.map(|part| {
            let (heading, text) = part.split_once('\n').unwrap_or((part, ""));
            (heading.trim().to_owned(), text.trim().to_owned())
        });
        Self {
            introduction,
            sections: sections.collect(),
        }
    }

    /// Puts what comes before the first section.
    pub(super) fn introduce(&mut self, text: &str) {
        text.trim().clone_into(&mut self.introduction);
    }

    /// Puts a section in the place of the one of its heading, whose notes stay.
    pub(super) fn put(&mut self, heading: &str, text: &str) {
        let text = text.trim();
        match self.sections.iter_mut().find(|(other, _)| other == heading) {
            Some((_, old)) => {
                let notes = old.find(NOTES).map_or("", |at| &old[at..]);
                *old = format!("{text}\n\n{notes}").trim_end().to_owned();
            }
            None => self.sections.push((heading.to_owned(), text.to_owned())),
        }
        // A section that is no longer made stays, at the end.
        self.sections.sort_by_key(|(heading, _)| {
            HEADINGS
                .iter()
                .position(|known| known == heading)
                .unwrap_or(HEADINGS.len())
        });
    }

    /// The page as a text.
    pub(super) fn text(&self) -> String {
        let sections = self.sections.iter();
        let sections = sections.map(|(heading, text)| format!("\n\n## {heading}\n\n{text}"));
        format!("{}{}\n", self.introduction, sections.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_replaced_and_their_notes_kept() {
        let text = "# A\n\nb\n\n## Memory\n\nold\n\n### Notes\n\n- by hand\n\n## Machine\n\nm\n";
        let mut page = Page::parse(text);
        assert_eq!(page.text(), text);
        page.put("Memory", "new\n");
        page.put("W1: a middling project", "fast\n");
        page.introduce("# A\n\nc\n");
        assert_eq!(
            page.text(),
            "# A\n\nc\n\n## W1: a middling project\n\nfast\n\n## Memory\n\nnew\n\n### Notes\n\n- by hand\n\n## Machine\n\nm\n"
        );
    }

    #[test]
    fn an_empty_page_takes_sections_in_their_order() {
        let mut page = Page::parse("");
        page.introduce("# A");
        page.put("Machine", "m");
        page.put("Memory", "n");
        assert_eq!(page.text(), "# A\n\n## Memory\n\nn\n\n## Machine\n\nm\n");
    }
}
