//! What a statement in the binlog does, as far as capture must know: end a transaction, empty a table, or change tables' shapes.
//!
//! Only the head of a statement is read. Of what cannot be read nothing is assumed: every shape is read again from the catalog or the next table map, and
//! the statement is recorded, never fatal.

use super::binlog::events::Xa;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Read of a statement. Where names may stand behind that, it counts as unread.
const HEAD_BYTES_MAX: usize = 64 << 10;
const TOKENS_MAX: usize = 4_096;
/// 64 characters ("Identifier Length Limits"); names of XA transactions, in hexadecimal, have 128.
const IDENTIFIER_BYTES_MAX: usize = 256;

/// `database` is the statement's current one where the name has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub database: String,
    pub table: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Begin,
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    /// The rows behind it are of this branch, until it is prepared.
    XaStart(Xa),
    /// Of what was prepared before.
    XaCommit(Xa),
    XaRollback(Xa),
    /// An end of what was prepared before, and it cannot be told of what.
    XaUnread,
    Truncate(Name),
    /// Shapes of these may be others now.
    Shapes(Vec<Name>),
    /// Rows of these came or went without row events: partitions truncated, dropped, exchanged or converted, a tablespace discarded.
    Partitions(Vec<Name>),
    /// Rows were changed by a statement and not by row events.
    Dml,
    /// Nothing of tables: users, grants, functions.
    Other,
    /// A change of tables whose names cannot be told.
    Unread,
}

impl Statement {
    pub fn read(sql: &str, database: &str) -> Self {
        let mut end = sql.len().min(HEAD_BYTES_MAX);
        while !sql.is_char_boundary(end) {
            end -= 1;
        }
        let tokens = tokens(&sql[..end]);
        let (is_cut, is_empty) = (end < sql.len() || tokens.len() >= TOKENS_MAX, tokens.is_empty());
        match (Reader { tokens: tokens.into_iter().peekable(), database }).statement() {
            // Names may stand behind what was read.
            Self::Shapes(_) if is_cut => Self::Unread,
            Self::Other if is_cut && is_empty => Self::Unread,
            statement => statement,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word or number without quotes.
    Word(String),
    /// In backticks or quotes.
    Quoted(String),
    Sign(char),
}

/// Comments are left out; what MySQL executes from comments (`/*!50000 … */`) is read as if it stood outside.
fn tokens(sql: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next().filter(|_| out.len() < TOKENS_MAX) {
        rest = match c {
            '#' => behind(rest, "\n"),
            '-' if rest.starts_with("-- ") || rest.starts_with("--\t") || rest.starts_with("--\n") => behind(rest, "\n"),
            '/' if rest.starts_with("/*!") || rest.starts_with("/*M!") => {
                behind(rest, "!").trim_start_matches(|c: char| c.is_ascii_digit())
            }
            '/' if rest.starts_with("/*") => behind(&rest[2..], "*/"),
            '*' if rest.starts_with("*/") => &rest[2..],
            '`' | '"' | '\'' => quoted(rest, c, &mut out),
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                out.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token::Sign(c));
                }
                &rest[c.len_utf8()..]
            }
        };
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c > '\u{7f}'
}

fn behind<'a>(text: &'a str, mark: &str) -> &'a str {
    text.find(mark).map_or("", |at| &text[at + mark.len()..])
}

/// A quote inside is doubled, or in a string stands behind a backslash.
fn quoted<'a>(text: &'a str, quote: char, out: &mut Vec<Token>) -> &'a str {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote != '`' => content.extend(chars.next().map(|(_, c)| c)),
            c if c == quote && chars.peek().is_some_and(|(_, next)| *next == quote) => {
                chars.next();
                content.push(c);
            }
            c if c == quote => {
                out.push(Token::Quoted(content));
                return &text[at + 1..];
            }
            c => content.push(c),
        }
    }
    ""
}

struct Reader<'a> {
    tokens: Peekable<IntoIter<Token>>,
    database: &'a str,
}

impl Reader<'_> {
    fn word(&mut self) -> String {
        match self.tokens.next() {
            Some(Token::Word(word)) => word.to_ascii_uppercase(),
            _ => String::new(),
        }
    }

    /// Takes the next word if it is this one.
    fn is_next(&mut self, word: &str) -> bool {
        self.tokens.next_if(|t| matches!(t, Token::Word(w) if w.eq_ignore_ascii_case(word))).is_some()
    }

    fn skip_all(&mut self, words: &[&str]) {
        while words.iter().any(|word| self.is_next(word)) {}
    }

    fn identifier(&mut self) -> Option<String> {
        match self.tokens.next()? {
            Token::Word(text) | Token::Quoted(text) => Some(text).filter(|text| text.len() <= IDENTIFIER_BYTES_MAX),
            Token::Sign(_) => None,
        }
    }

    fn name(&mut self) -> Option<Name> {
        let first = self.identifier()?;
        if self.tokens.next_if_eq(&Token::Sign('.')).is_none() {
            return Some(Name { database: self.database.to_owned(), table: first });
        }
        Some(Name { database: first, table: self.identifier()? })
    }

    fn statement(mut self) -> Statement {
        match self.word().as_str() {
            "BEGIN" => Statement::Begin,
            "START" if self.is_next("TRANSACTION") => Statement::Begin,
            "COMMIT" => Statement::Commit,
            "ROLLBACK" => self.rollback(),
            "SAVEPOINT" => self.identifier().map_or(Statement::Unread, Statement::Savepoint),
            "XA" => self.xa(),
            "TRUNCATE" => {
                self.skip_all(&["TABLE"]);
                self.name().map_or(Statement::Unread, Statement::Truncate)
            }
            "RENAME" => self.rename(),
            "DROP" | "CREATE" => self.drop_or_create(),
            "ALTER" => self.alter(),
            "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" => Statement::Dml,
            _ => Statement::Other,
        }
    }

    fn rollback(&mut self) -> Statement {
        self.skip_all(&["WORK"]);
        if !self.is_next("TO") {
            return Statement::Rollback;
        }
        self.skip_all(&["SAVEPOINT"]);
        self.identifier().map_or(Statement::Unread, Statement::RollbackTo)
    }

    /// As servers write it: `XA COMMIT X'31',X'',1`. `XA END` and `XA PREPARE` have no meaning of their own: an event of its own is the end.
    fn xa(&mut self) -> Statement {
        let what: fn(Xa) -> Statement = match self.word().as_str() {
            "START" | "BEGIN" => Statement::XaStart,
            "COMMIT" => Statement::XaCommit,
            "ROLLBACK" => Statement::XaRollback,
            _ => return Statement::Other,
        };
        self.xid().map_or(Statement::XaUnread, what)
    }

    fn xid(&mut self) -> Option<Xa> {
        let gtrid = self.hex_string()?;
        self.tokens.next_if_eq(&Token::Sign(','))?;
        let bqual = self.hex_string()?;
        self.tokens.next_if_eq(&Token::Sign(','))?;
        Some(Xa { format: self.word().parse().ok()?, gtrid: gtrid.into(), bqual: bqual.into() })
    }

    /// `X'31'`
    fn hex_string(&mut self) -> Option<Vec<u8>> {
        if !self.is_next("X") {
            return None;
        }
        unhex(&self.identifier()?).filter(|name| name.len() <= Xa::NAME_BYTES_MAX)
    }

    fn rename(&mut self) -> Statement {
        if !self.is_next("TABLE") && !self.is_next("TABLES") {
            return Statement::Other;
        }
        self.skip_all(&["IF", "EXISTS"]);
        let mut names = Vec::new();
        loop {
            let Some(from) = self.name() else { return Statement::Unread };
            if self.is_next("WAIT") {
                self.word();
            }
            self.skip_all(&["NOWAIT"]);
            let to = if self.is_next("TO") { self.name() } else { None };
            let Some(to) = to else { return Statement::Unread };
            names.extend([from, to]);
            if self.tokens.next_if_eq(&Token::Sign(',')).is_none() {
                return Statement::Shapes(names);
            }
        }
    }

    fn drop_or_create(&mut self) -> Statement {
        self.skip_all(&["OR", "REPLACE", "UNIQUE", "FULLTEXT", "SPATIAL", "ONLINE", "OFFLINE"]);
        let is_temporary = self.is_next("TEMPORARY");
        let what = self.word();
        if is_temporary {
            return Statement::Other;
        }
        self.skip_all(&["IF", "NOT", "EXISTS"]);
        match what.as_str() {
            "TABLE" | "TABLES" => self.names(),
            "INDEX" => {
                let _index = self.identifier();
                while self.tokens.peek().is_some() && !self.is_next("ON") {
                    self.tokens.next();
                }
                self.names()
            }
            "DATABASE" | "SCHEMA" => Statement::Shapes(Vec::new()),
            _ => Statement::Other,
        }
    }

    fn names(&mut self) -> Statement {
        let mut names = Vec::new();
        loop {
            match self.name() {
                Some(name) => names.push(name),
                None => return Statement::Unread,
            }
            if self.tokens.next_if_eq(&Token::Sign(',')).is_none() {
                return Statement::Shapes(names);
            }
        }
    }

    fn alter(&mut self) -> Statement {
        self.skip_all(&["ONLINE", "OFFLINE", "IGNORE"]);
        if !self.is_next("TABLE") {
            return Statement::Other;
        }
        self.skip_all(&["IF", "EXISTS"]);
        let Some(name) = self.name() else { return Statement::Unread };
        let mut names = vec![name];
        while let Some(token) = self.tokens.next() {
            let Token::Word(word) = token else { continue };
            match word.to_ascii_uppercase().as_str() {
                "TRUNCATE" | "DROP" if self.is_next("PARTITION") => return Statement::Partitions(names),
                "DISCARD" | "IMPORT" => return Statement::Partitions(names),
                "EXCHANGE" if self.is_next("PARTITION") => return self.partition_and_table(names, "WITH"),
                "CONVERT" if self.is_next("PARTITION") => return self.partition_and_table(names, "TO"),
                "CONVERT" if self.is_next("TABLE") => {
                    names.extend(self.name());
                    return Statement::Partitions(names);
                }
                "RENAME" => names.extend(self.renamed()),
                _ => {}
            }
        }
        Statement::Shapes(names)
    }

    /// `EXCHANGE PARTITION p WITH TABLE t`, MariaDB's `CONVERT PARTITION p TO TABLE t`: rows of both come or go.
    fn partition_and_table(&mut self, mut names: Vec<Name>, word: &str) -> Statement {
        let _partition = self.identifier();
        self.skip_all(&[word, "TABLE"]);
        names.extend(self.name());
        Statement::Partitions(names)
    }

    /// Behind `RENAME` in an `ALTER TABLE`: a new name, or that of a column or index.
    fn renamed(&mut self) -> Option<Name> {
        if self.is_next("COLUMN") || self.is_next("INDEX") || self.is_next("KEY") {
            return None;
        }
        self.skip_all(&["TO", "AS"]);
        self.name()
    }
}

/// Bytes from their hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xa(gtrid: &'static [u8]) -> Xa {
        Xa { format: 1, gtrid: bytes::Bytes::from_static(gtrid), bqual: bytes::Bytes::new() }
    }

    fn n(text: &str) -> Name {
        let (database, table) = text.split_once('.').expect("database.table");
        Name { database: database.into(), table: table.into() }
    }

    #[test]
    fn statements_are_read_as_far_as_capture_needs() {
        let shapes = |names: &[&str]| Statement::Shapes(names.iter().map(|t| n(t)).collect());
        let partitions = |names: &[&str]| Statement::Partitions(names.iter().map(|t| n(t)).collect());
        let cases = [
            ("BEGIN", Statement::Begin),
            ("START TRANSACTION", Statement::Begin),
            ("COMMIT", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("ROLLBACK TO `a b`", Statement::RollbackTo("a b".into())),
            ("rollback work to savepoint x", Statement::RollbackTo("x".into())),
            ("SAVEPOINT `x`", Statement::Savepoint("x".into())),
            ("XA START X'616B',X'',1", Statement::XaStart(xa(b"ak"))),
            ("XA END X'31',X'',1", Statement::Other),
            ("XA ROLLBACK X'31',X'',1", Statement::XaRollback(xa(b"1"))),
            ("XA COMMIT X'31',X'',1", Statement::XaCommit(xa(b"1"))),
            ("XA COMMIT 'a name'", Statement::XaUnread),
            ("XA COMMIT X'3',X'',1", Statement::XaUnread),
            ("TRUNCATE t", Statement::Truncate(n("d.t"))),
            ("/* why */ truncate table `o`.`a``b`", Statement::Truncate(n("o.a`b"))),
            ("TRUNCATE 5", Statement::Truncate(n("d.5"))),
            ("TRUNCATE", Statement::Unread),
            ("RENAME TABLE a TO b, `o`.c TO d", shapes(&["d.a", "d.b", "o.c", "d.d"])),
            (
                "rename /* gh-ost */ table `s`.`orders` to `s`.`_orders_del`, `s`.`_orders_gho` to `s`.`orders`",
                shapes(&["s.orders", "s._orders_del", "s._orders_gho", "s.orders"]),
            ),
            ("RENAME TABLE a", Statement::Unread),
            ("RENAME USER a TO b", Statement::Other),
            ("DROP TABLE IF EXISTS `a`,b /* generated by server */", shapes(&["d.a", "d.b"])),
            ("DROP TEMPORARY TABLE x", Statement::Other),
            ("CREATE TABLE IF NOT EXISTS o.t (id int)", shapes(&["o.t"])),
            ("CREATE OR REPLACE TABLE t LIKE u", shapes(&["d.t"])),
            ("CREATE UNIQUE INDEX i USING BTREE ON t (a)", shapes(&["d.t"])),
            ("CREATE FUNCTION f() RETURNS int RETURN 1", Statement::Other),
            ("DROP DATABASE x", shapes(&[])),
            ("ALTER TABLE t ADD COLUMN c int DEFAULT 'drop partition'", shapes(&["d.t"])),
            ("alter online ignore table t rename to o.u", shapes(&["d.t", "o.u"])),
            ("ALTER TABLE t RENAME COLUMN a TO b, RENAME AS v", shapes(&["d.t", "d.v"])),
            ("ALTER TABLE t /*!50100 TRUNCATE PARTITION p1 */", partitions(&["d.t"])),
            ("ALTER TABLE t DROP PARTITION p1, p2", partitions(&["d.t"])),
            ("ALTER TABLE t EXCHANGE PARTITION p1 WITH TABLE `o`.u WITHOUT VALIDATION", partitions(&["d.t", "o.u"])),
            ("ALTER TABLE t CONVERT PARTITION p1 TO TABLE u", partitions(&["d.t", "d.u"])),
            ("ALTER TABLE t CONVERT TABLE u TO PARTITION p1 VALUES LESS THAN (9)", partitions(&["d.t", "d.u"])),
            ("ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4", shapes(&["d.t"])),
            ("ALTER TABLE t REORGANIZE PARTITION p1 INTO (PARTITION a VALUES LESS THAN (9))", shapes(&["d.t"])),
            ("ALTER TABLE t DISCARD TABLESPACE", partitions(&["d.t"])),
            ("ALTER TABLE t DROP COLUMN partition_id", shapes(&["d.t"])),
            ("ALTER USER u IDENTIFIED BY 'x'", Statement::Other),
            ("INSERT INTO t VALUES (1)", Statement::Dml),
            ("-- a note\n# another\nDELETE FROM t", Statement::Dml),
            ("GRANT ALL ON *.* TO u", Statement::Other),
            ("", Statement::Other),
        ];
        for (sql, want) in cases {
            assert_eq!(Statement::read(sql, "d"), want, "{sql}");
        }
    }

    #[test]
    fn what_is_too_long_to_be_read_whole_is_unread() {
        let many = vec!["some_table"; 10_000].join(", ");
        assert_eq!(Statement::read(&format!("DROP TABLE {many}"), "d"), Statement::Unread);
        assert_eq!(Statement::read(&format!("/* {many} */ DROP TABLE t"), "d"), Statement::Unread);
        assert_eq!(Statement::read(&format!("DROP TABLE {}", "n".repeat(300)), "d"), Statement::Unread);
        assert_eq!(Statement::read(&format!("INSERT INTO t VALUES ({many})"), "d"), Statement::Dml);
        assert_eq!(Statement::read(&format!("TRUNCATE t /* {many} */"), "d"), Statement::Truncate(n("d.t")));
    }

    #[test]
    fn any_text_is_read_without_harm() {
        for sql in [
            "TRUNCATE `unended",
            "/* unended",
            "ALTER TABLE",
            "DROP TABLE ,",
            "RENAME TABLE a TO",
            "CREATE INDEX",
            "'\\",
            "/*!",
            "`",
            "DROP TABLE ü.ö",
        ] {
            Statement::read(sql, "d");
            Statement::read(&sql.repeat(20_000), "d");
        }
    }
}
