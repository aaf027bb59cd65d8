//! One table a rule: a Dockerfile and what is found in it, as `Rule:line: message`.

use super::*;
use crate::dockerfile::parse;
use proptest::prelude::*;

/// Checks for linux/amd64 with an ignore file that leaves out `ignored` and all below it.
fn found_with(text: &str, args: &[(&str, &str)], target: Option<&str>, base: Option<BaseImage>) -> Vec<String> {
    let file = parse("Dockerfile", text).unwrap();
    let build_args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let input = Input {
        build_args: &build_args,
        platform: &"linux/amd64".parse().unwrap(),
        target,
        all_stages: target.is_none(),
        ignored: &|path| path == "ignored" || path.starts_with("ignored/"),
        find_base: &|_, _| base.clone(),
    };
    let findings = check(&file, &input, &file.check);
    let told = |f: &Finding| format!("{}:{}: {}", f.rule.name(), f.span.line, f.message);
    findings.iter().map(told).collect()
}

fn found(text: &str) -> Vec<String> {
    found_with(text, &[], None, None)
}

/// Compares the table of a rule; nothing but that rule may be found.
fn table(rule: Rule, cases: &[(&str, &[(usize, &str)])]) {
    for (text, want) in cases {
        let want: Vec<String> = want
            .iter()
            .map(|(line, message)| format!("{}:{line}: {message}", rule.name()))
            .collect();
        assert_eq!(found(text), want, "{text}");
    }
}

#[test]
fn stage_name_casing() {
    let message = "Stage name 'BadName' should be lowercase";
    table(
        Rule::StageNameCasing,
        &[
            ("FROM scratch AS BadName", &[(1, message)]),
            ("FROM --platform=$BUILDPLATFORM scratch AS BadName", &[(1, message)]),
            ("FROM scratch AS good-name.1", &[]),
        ],
    );
}

#[test]
fn from_as_casing() {
    table(
        Rule::FromAsCasing,
        &[
            (
                "FROM scratch as a",
                &[(1, "'as' and 'FROM' keywords' casing do not match")],
            ),
            (
                "from scratch AS a",
                &[(1, "'AS' and 'from' keywords' casing do not match")],
            ),
            ("FROM scratch AS a\nFROM a AS b", &[]),
            ("from scratch as a", &[]),
        ],
    );
}

#[test]
fn no_empty_continuation() {
    table(
        Rule::NoEmptyContinuation,
        &[
            (
                "FROM scratch\nCOPY a \\\n\n  b\nCOPY c \\\n# a comment is none\n d",
                &[(4, "Empty continuation line")],
            ),
            ("FROM scratch\nCOPY a b \\\n", &[]),
        ],
    );
}

#[test]
fn consistent_instruction_casing() {
    let message = |keyword: &str, casing: &str| {
        format!("Command '{keyword}' should match the case of the command majority ({casing})")
    };
    table(
        Rule::ConsistentInstructionCasing,
        &[
            (
                "FROM scratch\nCopy a b\nCOPY c d",
                &[(2, &message("Copy", "uppercase"))],
            ),
            (
                "from scratch\nCOPY a b\ncopy c d",
                &[(2, &message("COPY", "lowercase"))],
            ),
            ("arg A\nFROM scratch\nCOPY a b", &[]),
        ],
    );
}

#[test]
fn stage_names() {
    table(
        Rule::DuplicateStageName,
        &[
            (
                "FROM scratch AS a\nFROM scratch AS a",
                &[(2, "Duplicate stage name \"a\", stage names should be unique")],
            ),
            ("FROM scratch AS a\nFROM scratch AS b", &[]),
        ],
    );
    table(
        Rule::ReservedStageName,
        &[
            (
                "FROM scratch AS scratch",
                &[(
                    1,
                    "Stage name should not use the same name as reserved stage \"scratch\"",
                )],
            ),
            (
                "FROM scratch AS context",
                &[(
                    1,
                    "Stage name should not use the same name as reserved stage \"context\"",
                )],
            ),
        ],
    );
}

#[test]
fn json_args_recommended() {
    let message = |keyword: &str| {
        format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals")
    };
    table(
        Rule::JsonArgsRecommended,
        &[
            (
                "FROM scratch\nENTRYPOINT a\nCMD b",
                &[(2, &message("ENTRYPOINT")), (3, &message("CMD"))],
            ),
            ("FROM scratch\nSHELL [\"x\"]\nCMD a", &[]),
            ("FROM scratch AS a\nSHELL [\"x\"]\nFROM a\nENTRYPOINT a", &[]),
            ("FROM scratch\nCMD [\"a\"]\nHEALTHCHECK CMD a", &[]),
        ],
    );
}

#[test]
fn maintainer_deprecated() {
    let message = "Maintainer instruction is deprecated in favor of using label";
    table(
        Rule::MaintainerDeprecated,
        &[("FROM scratch\nMAINTAINER a", &[(2, message)])],
    );
}

#[test]
fn undefined_arg_in_from() {
    table(
        Rule::UndefinedArgInFrom,
        &[
            ("FROM a$TAG", &[(1, "FROM argument 'TAG' is not declared")]),
            (
                "ARG VERSION=1\nFROM a:b$VERSIO",
                &[(2, "FROM argument 'VERSIO' is not declared (did you mean VERSION?)")],
            ),
            (
                "FROM --platform=$BULIDPLATFORM a",
                &[(
                    1,
                    "FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)",
                )],
            ),
            ("ARG A=1\nFROM --platform=$BUILDPLATFORM a:$A", &[]),
        ],
    );
}

#[test]
fn workdir_relative_path() {
    let message = "Relative workdir \"a\" can have unexpected results if the base image changes";
    table(
        Rule::WorkdirRelativePath,
        &[
            ("FROM scratch\nWORKDIR a\nWORKDIR b", &[(2, message)]),
            ("FROM scratch\nWORKDIR /a\nWORKDIR b", &[]),
            ("FROM scratch AS one\nWORKDIR /a\nFROM one\nWORKDIR b", &[]),
            ("FROM unknown\nWORKDIR $HOME", &[]),
        ],
    );
}

#[test]
fn undefined_var() {
    let message = |name: &str| format!("Usage of undefined variable '${name}'");
    table(
        Rule::UndefinedVar,
        &[
            (
                "FROM scratch\nARG foo=1\nCOPY $fo b",
                &[(3, "Usage of undefined variable '$fo' (did you mean $foo?)")],
            ),
            (
                "FROM scratch\nLABEL a=$b\nUSER $c\nVOLUME $d",
                &[(2, &message("b")), (3, &message("c")), (4, &message("d"))],
            ),
            ("FROM scratch\nENV A=$A", &[(2, &message("A"))]),
            ("FROM scratch\nARG A=$A", &[(2, &message("A"))]),
            ("FROM scratch\nCOPY <<E /\n$inlined\nE", &[(2, &message("inlined"))]),
            (
                "FROM scratch\nRUN --mount=type=cache,target=$dirt x",
                &[(2, &message("dirt"))],
            ),
            ("FROM scratch\nARG A\nENV P=$PATH:$A", &[]),
            ("FROM scratch\nRUN echo $x\nCMD [\"$x\"]", &[]),
            (
                "FROM scratch AS a\nONBUILD ENV FOO_ONE=1\nFROM a\nLABEL a=$FOO_ONE",
                &[],
            ),
            ("FROM unknown\nLABEL a=$defined_there", &[]),
        ],
    );
    let base = BaseImage {
        env: vec!["THERE=1".into()],
        triggers: vec!["ENV TRIGGERED=1".into(), "nonsense".into()],
        platform: "linux/amd64".parse().unwrap(),
        ..BaseImage::default()
    };
    let text = "FROM a\nLABEL a=$THERE$TRIGGERED b=$elsewhere";
    assert_eq!(
        found_with(text, &[], None, Some(base)),
        ["UndefinedVar:2: Usage of undefined variable '$elsewhere'"]
    );
}

#[test]
fn multiple_instructions_disallowed() {
    let message = |keyword: &str| {
        format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        )
    };
    table(
        Rule::MultipleInstructionsDisallowed,
        &[
            (
                "FROM scratch\nCMD [\"a\"]\nENTRYPOINT [\"a\"]\nHEALTHCHECK NONE\nCMD [\"b\"]\nENTRYPOINT [\"b\"]\nHEALTHCHECK NONE",
                &[
                    (2, &message("CMD")),
                    (3, &message("ENTRYPOINT")),
                    (4, &message("HEALTHCHECK")),
                ],
            ),
            ("FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]", &[]),
        ],
    );
}

#[test]
fn legacy_key_value_format() {
    let message = |keyword: &str| {
        format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format")
    };
    table(
        Rule::LegacyKeyValueFormat,
        &[
            (
                "FROM scratch\nENV a b\nLABEL c d",
                &[(2, &message("ENV")), (3, &message("LABEL"))],
            ),
            ("FROM scratch\nENV a=\"b c\" d=e\nLABEL \"f g\"=h", &[]),
        ],
    );
}

#[test]
fn platforms() {
    table(
        Rule::RedundantTargetPlatform,
        &[
            (
                "FROM --platform=$TARGETPLATFORM a",
                &[(
                    1,
                    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
                )],
            ),
            ("FROM --platform=${TARGETOS}/$TARGETARCH a", &[]),
        ],
    );
    table(
        Rule::FromPlatformFlagConstDisallowed,
        &[
            (
                "FROM --platform=linux/arm64 a",
                &[(1, "FROM --platform flag should not use constant value \"linux/arm64\"")],
            ),
            ("FROM --platform=linux/arm64 a AS build-arm64", &[]),
            ("ARG P=linux/arm64\nFROM --platform=$P a", &[]),
        ],
    );
    let base = BaseImage {
        platform: "linux/arm64".parse().unwrap(),
        ..BaseImage::default()
    };
    assert_eq!(
        found_with("FROM a", &[], None, Some(base.clone())),
        [
            "InvalidBaseImagePlatform:1: Base image a was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build"
        ]
    );
    let text = "ARG P=linux/arm64\nFROM --platform=$P a";
    assert!(found_with(text, &[], None, Some(base)).is_empty());
}

#[test]
fn secrets_used_in_arg_or_env() {
    let message = |what: &str| format!("Do not use ARG or ENV instructions for sensitive data ({what})");
    table(
        Rule::SecretsUsedInArgOrEnv,
        &[
            (
                "FROM scratch\nARG API_KEY super_secret=1\nENV TOKEN=x PUBLIC_KEY=y",
                &[
                    (2, &message("ARG \"API_KEY\"")),
                    (2, &message("ARG \"super_secret\"")),
                    (3, &message("ENV \"TOKEN\"")),
                ],
            ),
            ("ARG TOKEN\nFROM scratch\nARG PASSWORD_FILE MONKEY", &[]),
        ],
    );
}

#[test]
fn invalid_default_arg_in_from() {
    let message = |image: &str| format!("Default value for ARG {image} results in empty or invalid base image name");
    table(
        Rule::InvalidDefaultArgInFrom,
        &[
            ("ARG IMAGE\nFROM $IMAGE", &[(2, &message("$IMAGE"))]),
            ("ARG TAG\nFROM busybox:${TAG}", &[(2, &message("busybox:${TAG}"))]),
            ("ARG TAG\nFROM busybox${TAG:+:$TAG}", &[]),
            ("ARG TAG=1\nFROM busybox:$TAG", &[]),
        ],
    );
    let given = [("TAG", "1")];
    assert_eq!(found_with("ARG TAG\nFROM busybox:$TAG", &given, None, None).len(), 1);
}

#[test]
fn copy_ignored_file() {
    let message =
        |verb: &str, file: &str| format!("Attempting to {verb} file \"{file}\" that is excluded by .dockerignore");
    table(
        Rule::CopyIgnoredFile,
        &[
            (
                "FROM scratch\nARG D=ignored\nCOPY ./a/../ignored b/\nADD ignored/x a /y/\nCOPY $D/z /",
                &[
                    (3, &message("Copy", "ignored")),
                    (4, &message("Add", "ignored/x")),
                    (5, &message("Copy", "ignored/z")),
                ],
            ),
            (
                "FROM scratch AS a\nCOPY <<ignored /\nE\nignored\nFROM scratch\nCOPY --from=a ignored /\nCOPY . /",
                &[],
            ),
        ],
    );
}

#[test]
fn invalid_definition_description() {
    let first = "# check=experimental=all\n";
    for (text, want) in [
        (
            "# what\nARG a=1\nFROM scratch",
            Some("ARG should follow the format: `# a <description>`"),
        ),
        (
            "# what\nARG a=1 b=2\nFROM scratch",
            Some("ARG should follow the format: `# <arg_key> <description>`"),
        ),
        (
            "# Base is\nFROM scratch AS base",
            Some("FROM should follow the format: `# base <description>`"),
        ),
        ("# base is\n# check=skip=StageNameCasing\nFROM scratch AS base", None),
        ("# what\n\nARG a=1\n# what\n#\nFROM scratch AS base", None),
        ("# what\nFROM scratch\n# what\nLABEL a=b", None),
    ] {
        let want: Vec<String> = want
            .map(|want| format!("InvalidDefinitionDescription:3: Comment for {want}"))
            .into_iter()
            .collect();
        assert_eq!(found(&format!("{first}{text}")), want, "{text}");
        assert_eq!(found(text), Vec::<String>::new(), "only when asked for");
    }
}

#[test]
fn expose() {
    table(
        Rule::ExposeProtoCasing,
        &[(
            "FROM scratch\nEXPOSE 80/TCP 81/udp",
            &[(2, "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase")],
        )],
    );
    let message =
        |port: &str| format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
    table(
        Rule::ExposeInvalidFormat,
        &[
            (
                "FROM scratch\nARG P=127.0.0.1:80:80\nEXPOSE $P 5000:5000/tcp [::1]:8080:8080 80-90",
                &[
                    (3, &message("127.0.0.1:80:80")),
                    (3, &message("5000:5000/tcp")),
                    (3, &message("[::1]:8080:8080")),
                ],
            ),
            ("FROM scratch\nEXPOSE 80 80/udp :80", &[]),
        ],
    );
}

#[test]
fn rules_are_skipped() {
    let text = "FROM scratch AS BadName\nCMD a";
    assert_eq!(found(text).len(), 2);
    for (directive, left) in [("skip=all", 0), ("skip=StageNameCasing,Nothing", 1), ("skip=CMD", 2)] {
        assert_eq!(found(&format!("# check={directive}\n{text}")).len(), left);
    }
    let below = "# check=skip=JSONArgsRecommended // it starts no process\nCMD a";
    assert_eq!(found(&format!("FROM scratch AS BadName\n# why\n{below}")).len(), 1);
}

#[test]
fn only_needed_stages_are_walked_for_a_target() {
    let text = "FROM scratch AS BadName\nCMD a\nFROM scratch AS two\nCMD b\nFROM scratch\nCOPY --from=two /x /\nCMD c";
    assert_eq!(found(text).len(), 4);
    let lines = |target| -> Vec<String> {
        let found = found_with(text, &[], target, None);
        found
            .iter()
            .map(|f| f.split(':').take(2).collect::<Vec<_>>().join(":"))
            .collect()
    };
    assert_eq!(lines(Some("two")), ["StageNameCasing:1", "JSONArgsRecommended:4"]);
    assert_eq!(lines(Some("none")), ["StageNameCasing:1"]);
}

proptest! {
    #[test]
    fn never_panics(text in "((FROM|from|AS|RUN|COPY|ENV|ARG|LABEL|EXPOSE|WORKDIR|ONBUILD|CMD|#|check=skip=|\\\\|<<E|\"|'|\\$\\{?|\n| |--platform|=|:|/|-|[a-z\u{e9}\u{130}]){0,3}){0,14}") {
        let text = format!("FROM scratch\n{text}");
        if let Ok(file) = parse("Dockerfile", &text) {
            let lines = text.lines().count();
            let input = Input {
                build_args: &BTreeMap::new(),
                platform: &Platform::host(),
                target: None,
                all_stages: true,
                ignored: &|path| path.len() % 2 == 0,
                find_base: &|name, _| (name.len() % 2 == 0).then(BaseImage::default),
            };
            for finding in check(&file, &input, &Options::parse("experimental=all").unwrap()) {
                prop_assert!((1..=lines).contains(&finding.span.line) && finding.span.line <= finding.last_line);
            }
        }
    }
}
