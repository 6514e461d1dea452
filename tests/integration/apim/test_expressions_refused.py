"""What API Management refuses when a policy is deployed is refused here when it is loaded, by place and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.apim.errors import PolicyError
from local.apim.expressions import Expression, compile_expressions

NOT_ALLOWED: list[tuple[str, str]] = [
    ('@(System.IO.File.ReadAllText("/etc/passwd"))', "System.IO.File"),
    ('@(Environment.GetEnvironmentVariable("HOME"))', "System.Environment"),
    ("@(System.Globalization.CultureInfo.InvariantCulture.Name)", "System.Globalization.CultureInfo"),
    ('@(int.Parse("1", System.Globalization.CultureInfo.InvariantCulture))', "System.Globalization.CultureInfo"),
    ("@(typeof(string).Name)", "System.Type"),
    ('@("".GetType().FullName)', "member GetType of System.Object"),
    ('@{ Console.WriteLine("x"); return 1; }', "System.Console"),
    ("@{ Thread.Sleep(1); return 1; }", "System.Threading.Thread"),
    ("@{ Func<Task<int>> f = async () => { await Task.Yield(); return 1; }; return 1; }", "System.Threading.Tasks"),
    ('@(new[] { "a" }.GroupBy(x => x).Select(x => x.Key).Count())', "System.Linq.IGrouping"),
    ("@{ Func<int, int> f = x => x + 1; return f(1); }", "member Invoke of System.Func"),
    ("@(new StringBuilder().Append((1, 2).Item1).ToString())", "System.ValueTuple"),
    ('@(DateTime.ParseExact("1", "d", null))', "member ParseExact of System.DateTime"),
    ('@{ DateTime t; return DateTime.TryParse("1", out t); }', "member TryParse of System.DateTime"),
    ("@(DateTime.UtcNow.ToUniversalTime())", "member ToUniversalTime of System.DateTime"),
    ('@(Regex.Escape("a"))', "member Escape of System.Text.RegularExpressions.Regex"),
    ('@(Regex.Matches("a", "a").Count)', "member Count of System.Text.RegularExpressions.MatchCollection"),
    ('@(Regex.Match("a", "a").NextMatch().Success)', "member NextMatch of System.Text.RegularExpressions.Match"),
    ('@(JsonConvert.DeserializeXNode("{}").ToString())', "member DeserializeXNode of Newtonsoft.Json.JsonConvert"),
    ('@(JToken.Parse("1").CreateReader().Depth)', "Newtonsoft.Json.JsonReader"),
    ('@(XDocument.Load("http://other/").ToString())', "member Load of System.Xml.Linq.XDocument"),
    ('@(new System.Net.WebClient().DownloadString("http://other/"))', "System.Net.WebClient"),
    ("@(new List<Version>().Count)", "System.Version"),
    ("@(new[] { 1 }.Cast<Version>().Count())", "System.Version"),
    ("@(new[] { 1 }.Select(x => Environment.TickCount + x).Sum())", "System.Environment"),
    ("@{ var n = 1; return new[] { 1 }.Select(x => Environment.TickCount + x + n).Sum(); }", "System.Environment"),
    ("@{ try { return 1; } catch (ArgumentException) { return 2; } }", "System.ArgumentException"),
    ("@{ lock (context) { return 1; } }", "System.Threading.Monitor"),
    ("@{ Version v = null; return v == null; }", "System.Version"),
    ("@((context.Variables[\"a\"] as Version) == null)", "System.Version"),
    ('@(decimal.Parse("1", (System.Globalization.NumberStyles)511))', "System.Globalization.NumberStyles"),
]  # fmt: skip

NEWER: list[tuple[str, str]] = [
    ('@("a--b".Split("--").Length)', "String.Split(String,StringSplitOptions)"),
    ('@{ var c = \'-\'; return "a-b".Split(c, StringSplitOptions.RemoveEmptyEntries).Length; }', "String.Split(Char"),
    ('@("Ab".Contains("a", StringComparison.OrdinalIgnoreCase))', "String.Contains(String,StringComparison)"),
    ('@("ab".StartsWith(\'a\'))', "String.StartsWith(Char)"),
    ('@(string.Join(\',\', new[] { "a" }))', "String.Join(Char,String[])"),
    ('@("a".Replace("A", "b", StringComparison.OrdinalIgnoreCase))', "String.Replace(String,String,StringComparison)"),
    ("@(Math.Clamp(1, 2, 3))", "Math.Clamp"),
    ("@(new Dictionary<string, int>().TryAdd(\"a\", 1))", "TryAdd"),
    ("@{ int v; return new Dictionary<string, int>().Remove(\"a\", out v); }", "Remove(TKey,TValue&)"),
    ("@(DateTimeOffset.UnixEpoch.Year)", "UnixEpoch"),
    ("@(new[] { 1 }.TakeLast(1).Count())", "TakeLast"),
    ("@(TimeSpan.FromSeconds(1) * 2)", "op_Multiply"),
]  # fmt: skip

SYNTAX: list[tuple[str, str]] = [
    ("@(1_000)", "as another number"),
    ("@(1_000.5m)", "as another number"),
    ("@(0x_FF)", "C# 7"),
    ("@{ int F(int x) { return x; } return F(1); }", "C# 7 has this, but mono"),
    ("@{ string F(int x) => x.ToString(); return F(1); }", "C# 7 has this, but mono"),
    ("@{ List<int> F() { return null; } return F().Count; }", "C# 7 has this, but mono"),
    ('@{ object o = 1; switch (o) { case int i: return i; default: return 0; } }', "C# 7 has this, but mono"),
    ("@{ var x = 1; switch (x) { case 1 when x > 0: return 1; default: return 0; } }", "C# 7 has this, but mono"),
    ("@(context.User is null)", "compare with == instead"),
    ("@(context.User is not null)", "API Management compiles C# 7"),
    ("@{ string s = null; s ??= \"x\"; return s; }", "API Management compiles C# 7"),
    ("@(1 switch { 1 => 2, _ => 3 })", "API Management compiles C# 7"),
    ("@{ using var h = SHA256.Create(); return 1; }", "API Management compiles C# 7"),
    ('@("abc"[1..])', "API Management compiles C# 7"),
    ('@("abc"[^1])', "API Management compiles C# 7"),
    ('@("""a""")', "API Management compiles C# 7"),
    ('@(@$"a{1}")', "API Management compiles C# 7"),
    ("@{ List<int> l = new(); return l.Count; }", "API Management compiles C# 7"),
    ('@("a-b".Split(\'-\', StringSplitOptions.None).Length)', "does not exist in .NET Framework"),
    ("@(DateTime.UtcNow.DayOfWeek == DayOfWeek.Monday)", "the type System.DayOfWeek is not allowed"),
    ("@(DateTime.UtcNow.DayOfWeek == @DayOfWeek.Monday)", "the type System.DayOfWeek is not allowed"),
    ("@((int)System.DayOfWeek.Monday)", "the type System.DayOfWeek is not allowed"),
    ("@((int)global::System.DayOfWeek.Monday)", "the type System.DayOfWeek is not allowed"),
    ('@($"{(int)DayOfWeek.Monday}")', "the type System.DayOfWeek is not allowed"),
    ("@((int)\\u0044ayOfWeek.Monday)", "escaped names"),
    ("@(new DateTime(2026, 1, 1, 0, 0, 0, DateTimeKind.Local))", "the constant Local of System.DateTimeKind"),
    ("@(Timeout.Infinite)", "the type System.Threading.Timeout is not allowed"),
    ("@{\n#line 5\nreturn 1; }", "directives"),
    ("@(1))", ") closes nothing"),
    ("@(1); } public static object X() { return (1)", "closes nothing"),
    ("@((1)", "( is not closed"),
    ('@("a)', '" is not closed'),
    ("1 + 1", "an expression is @(...) or @{...}"),
]  # fmt: skip

COMPILER: list[tuple[str, str, str]] = [
    ("@(context.Nope)", "line 1, column 11", "CS1061"),
    ("@{\n  var x = 1;\n  return x.Nope;\n}", "line 3, column 12", "CS1061"),
    ("@{ if (context.Request == null) { return 1; } }", "line 1", "CS0161"),
    ('@(Formatting.None)', "line 1, column 3", "ambiguous"),
    ('@(CultureInfo.InvariantCulture.Name)', "line 1, column 3", "CS0103"),
    ('@(WebUtility.UrlEncode("a"))', "line 1, column 3", "CS0103"),
    ("@{ dynamic d = 1; return d + 1; }", "line 1", "dynamic"),
    ("@{ int x = default; return x; }", "line 1, column 12", "not part of the C# 7.0"),
    ("@(context.Request.Body.As<int>())", "line 1", "CS0452"),
    ("@(new Apim.Url(\"http://a/\").Host)", "line 1", "CS"),
]  # fmt: skip

ALLOWED = [
    "@(System.Net.WebUtility.UrlEncode(\"a b\"))",
    "@(new DateTime(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc) < DateTime.UtcNow)",
    '@("abc".Contains(\'a\') && "a,b".Split(\',\').Length == 2 && "/x/".TrimEnd(\'/\') == "/x")',
    "@{ foreach (var pair in new Dictionary<string, int> { [\"a\"] = 1 }) { return pair.Key; } return null; }",
    "@{ foreach (var key in new Dictionary<string, int>().Keys) { return key; } return null; }",
    "@{ foreach (var item in new List<int>()) { return item; } return null; }",
    "@{ foreach (var token in (JArray)JToken.Parse(\"[]\")) { return token; } return null; }",
    "@{ foreach (var property in JObject.Parse(\"{}\").Properties()) { return property.Name; } return null; }",
    '@(new[] { "b", "a" }.OrderBy(x => x.Length).ThenBy(x => x).ToDictionary(x => x, x => x.Length)["a"])',
    "@{ var list = new List<int> { 2, 1 }; list.Sort((a, b) => a.CompareTo(b)); return list[0]; }",
    '@(Regex.Replace("a1", @"\\d", m => m.Value + m.Value))',
    "@{ using (var reader = new StringReader(\"a\\nb\")) { reader.ReadLine(); return reader.ReadToEnd(); } }",
    "@{ var text = new StringBuilder(); text.Append(1).AppendLine(\"x\"); return text.ToString(); }",
    "@(new { a = 1, b = new { c = \"x\" } }.b.c)",
    "@(context.Response?.StatusCode >= 500 ? \"yes\" : \"no\")",
    '@((bool?)JObject.Parse("{}")["stream"] == true)',
    '@(JObject.Parse("{\\"a\\": {\\"b\\": [1]}}").SelectToken("a.b[0]").Value<int>())',
    "@(\"is null, case int i: 1_000 and DayOfWeek.Monday in a text\")",
    "@{ // is null, 1_000 and DayOfWeek.Monday in a comment\n/* local functions: int F() { } */ return 0xFF + 0b11; }",
    '@($"{1:N2} {(true ? "a" : "b")} {{is null}}")',
    '@($@"C:\\{1}""")',
    '@{ switch (context.Request.Method) { case "GET": return 1; case "A": case "B": return 2; default: return 3; } }',
    "@{ var a = new[] { 1, 2, 3 }; var sum = 0; for (var i = 0; i < a.Length; i++) { sum += a[i]; } return sum; }",
    "@{ if (true) { return 1; } else if (false) { return 2; } while (false) { } do { } while (false); return 3; }",
    "@(((Func<int, bool>)(x => x > 1)) != null)",
    "@(Guid.NewGuid().ToString(\"N\").Substring(0, 8) + Math.Round(1.5m, MidpointRounding.AwayFromZero))",
    "@(Enumerable.Range(0, 3).Select(x => new KeyValuePair<int, int>(x, x)).ToList().Count)",
    "@(string.Equals(\"a\", \"A\", StringComparison.OrdinalIgnoreCase) ? (object)1 : \"x\")",
]  # fmt: skip


def refusals(cases: list[str]) -> dict[str, str]:
    """{expression: what is said of it}, of all of them compiled together."""
    with pytest.raises(PolicyError) as raised:
        compile_expressions([Expression(text, f"case-{index}.xml:7") for index, text in enumerate(cases)])
    said: dict[str, str] = {}
    for part in str(raised.value).split("case-")[1:]:
        index, _, message = part.partition(".xml:7: ")
        said.setdefault(cases[int(index)], message)
    return said


@pytest.mark.parametrize("cases", [NOT_ALLOWED, NEWER, SYNTAX], ids=["not allowed", "newer", "syntax"])
def test_refused_by_name(mono: None, cases: list[tuple[str, str]]) -> None:
    """Each expression is refused, with the type, member or construct that is at fault in the message."""
    said = refusals([text for text, _ in cases])
    wrong = {text: said.get(text) for text, reason in cases if reason not in said.get(text, "")}
    assert wrong == {}


@pytest.mark.parametrize(("text", "place", "reason"), COMPILER)
def test_compiler_errors_name_the_place(mono: None, text: str, place: str, reason: str) -> None:
    """What the compiler says, with file, line and column of the expression as it stands in the policy."""
    with pytest.raises(PolicyError) as raised:
        compile_expressions([Expression("@(1)", "first.xml:1"), Expression(text, "second.xml:2")])
    assert raised.value.where == "second.xml:2"
    assert place in raised.value.problem
    assert reason in raised.value.problem


def test_what_api_management_allows_is_not_refused(mono: None) -> None:
    """Ordinary C# 7 passes: what the compiler adds by itself for closures, foreach or anonymous types is no offence."""
    compiled = compile_expressions([Expression(text, f"allowed.xml:{index}") for index, text in enumerate(ALLOWED)])
    assert len(compiled.expressions) == len(ALLOWED)


def test_the_place_of_an_expression_decides_its_type(mono: None) -> None:
    """A condition must be a bool for the compiler, not only when it runs."""
    compile_expressions([Expression("@(1 == 1)", "when.xml:1", returns="bool")])
    with pytest.raises(PolicyError, match="Cannot implicitly convert type `object' to `bool'"):
        compile_expressions([Expression('@(context.Variables["x"])', "when.xml:1", returns="bool")])


def test_compiled_expressions_are_kept(mono: None, tmp_path: Path) -> None:
    """The same expressions are not compiled twice, others are; nothing half made is left behind."""
    first = compile_expressions([Expression("@(1)", "a.xml:1")], cache=tmp_path)
    made = first.assembly_path.stat().st_mtime_ns
    again = compile_expressions([Expression("@(1)", "b.xml:1")], cache=tmp_path)
    other = compile_expressions([Expression("@(2)", "a.xml:1")], cache=tmp_path)
    assert again.assembly_path == first.assembly_path != other.assembly_path
    assert again.expressions[0].where == "b.xml:1"
    assert first.assembly_path.stat().st_mtime_ns == made
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".dll", ".dll", ".dll", ".exe", ".json"]
