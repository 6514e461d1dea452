using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// Compares everything that compiled expressions use with what API Management allows. It reads the compiled code,
    /// not the source, so no way of writing an expression hides a type or a member.
    internal sealed class AllowList
    {
        private const BindingFlags Everything = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance
            | BindingFlags.Static | BindingFlags.DeclaredOnly;

        private const string SplitByCharacter = "System.String.Split(Char,StringSplitOptions)";

        private readonly Dictionary<string, HashSet<string>> allowed = new Dictionary<string, HashSet<string>>();
        private readonly Dictionary<string, HashSet<string>> excepted = new Dictionary<string, HashSet<string>>();
        private readonly HashSet<string> newerThanFramework;
        private readonly Assembly assembly;
        private readonly JArray findings = new JArray();
        private readonly HashSet<string> reported = new HashSet<string>();
        private string expression;

        private AllowList(Assembly assembly, JObject list)
        {
            this.assembly = assembly;
            Read((JObject)list["types"], allowed);
            Read((JObject)list["compiler"], allowed);
            Read((JObject)list["except"], excepted);
            newerThanFramework = new HashSet<string>(list["newer_than_framework"].Select(item => (string)item));
        }

        /// [{"expression": "E3", "kind": "type" | "member" | "newer", "type": name, "member": name}, ...]
        public static JArray Check(JObject list, string assemblyPath)
        {
            var check = new AllowList(Assembly.Load(File.ReadAllBytes(assemblyPath)), list);
            foreach (var type in check.assembly.GetTypes())
            {
                check.CheckDeclared(type);
            }
            return check.findings;
        }

        private static void Read(JObject json, Dictionary<string, HashSet<string>> into)
        {
            foreach (var property in json.Properties())
            {
                into[property.Name] = property.Value is JArray members
                    ? new HashSet<string>(members.Select(item => (string)item))
                    : null;
            }
        }

        /// mcs puts anonymous types and array constants into types of their own, whose code it writes itself.
        private static bool IsWrittenByCompiler(Type type)
        {
            return type.Name.StartsWith("<>__AnonType", StringComparison.Ordinal)
                || type.Name.StartsWith("<PrivateImplementationDetails>", StringComparison.Ordinal)
                || (type.DeclaringType != null && IsWrittenByCompiler(type.DeclaringType));
        }

        private void CheckDeclared(Type type)
        {
            if (IsWrittenByCompiler(type))
            {
                return;
            }
            foreach (var method in type.GetMethods(Everything).Cast<MethodBase>().Concat(type.GetConstructors(Everything)))
            {
                expression = ExpressionName(type, method);
                var body = method.GetMethodBody();
                if (body == null)
                {
                    continue;
                }
                foreach (var local in body.LocalVariables)
                {
                    CheckType(local.LocalType);
                }
                foreach (var clause in body.ExceptionHandlingClauses.Where(item => item.Flags == ExceptionHandlingClauseOptions.Clause))
                {
                    CheckType(clause.CatchType);
                }
                foreach (var instruction in Instruction.Read(method, body))
                {
                    CheckInstruction(instruction);
                }
            }
        }

        /// Lambdas of E3 are methods named <E3>m__0, in classes named <E3>c__AnonStorey0 when they capture variables.
        private static string ExpressionName(Type type, MethodBase method)
        {
            var names = new List<string> { method.Name };
            for (; type != null; type = type.DeclaringType)
            {
                names.Add(type.Name);
            }
            foreach (var name in names)
            {
                var plain = name.TrimStart('<').Split('>')[0];
                if (plain.Length > 1 && (plain[0] == 'E' || plain[0] == 'T') && plain.Skip(1).All(char.IsDigit))
                {
                    return "E" + plain.Substring(1);
                }
            }
            return null;
        }

        private void CheckInstruction(Instruction instruction)
        {
            if (instruction.Operand is Type type)
            {
                CheckType(type);
            }
            else if (instruction.Operand is MethodBase method)
            {
                CheckMember(method.DeclaringType, PlainName(method), method);
                foreach (var parameter in method.GetParameters().Where(item => item.ParameterType.IsEnum))
                {
                    // The value of an enumeration is a number by now, but only its type can have supplied it.
                    CheckType(parameter.ParameterType);
                }
                if (method.IsGenericMethod && !IsEmptyArray(method))
                {
                    CheckTypes(method.GetGenericArguments());
                }
                CheckFramework(method, instruction.IsLastArgumentGiven);
            }
            else if (instruction.Operand is FieldInfo field)
            {
                CheckMember(field.DeclaringType, field.Name, field);
            }
        }

        /// `params` without arguments becomes an empty array of a type that the expression need not name.
        private static bool IsEmptyArray(MethodBase method)
        {
            return method.DeclaringType == typeof(Array) && method.Name == "Empty";
        }

        private static string PlainName(MethodBase method)
        {
            if (method is MethodInfo && method.IsSpecialName)
            {
                foreach (var prefix in new[] { "get_", "set_", "add_", "remove_" })
                {
                    if (method.Name.StartsWith(prefix, StringComparison.Ordinal))
                    {
                        return method.Name.Substring(prefix.Length);
                    }
                }
            }
            return method.Name;
        }

        private static Type Definition(Type type)
        {
            while (type.HasElementType)
            {
                type = type.GetElementType();
            }
            return type.IsGenericType && !type.IsGenericTypeDefinition ? type.GetGenericTypeDefinition() : type;
        }

        private bool IsOurs(Type type) => type.Assembly == assembly || type.Assembly == typeof(AllowList).Assembly;

        private void CheckTypes(IEnumerable<Type> types)
        {
            foreach (var type in types)
            {
                CheckType(type);
            }
        }

        private void CheckType(Type type)
        {
            while (type.HasElementType)
            {
                type = type.GetElementType();
            }
            if (type.IsGenericParameter)
            {
                return;
            }
            var definition = Definition(type);
            if (!IsOurs(definition) && !IsListed(definition))
            {
                Report("type", definition, null);
            }
            if (type.IsGenericType)
            {
                CheckTypes(type.GetGenericArguments());
            }
        }

        private void CheckMember(Type type, string name, MemberInfo member)
        {
            if (type == null || type.IsArray)
            {
                return;
            }
            var definition = Definition(type);
            if (IsOurs(definition))
            {
                return;
            }
            if (!IsListed(definition))
            {
                if (!IsInheritedByListed(definition, member))
                {
                    Report("type", definition, name);
                }
            }
            else if (!IsMemberListed(definition, name))
            {
                Report("member", definition, name);
            }
            else if (newerThanFramework.Contains($"{definition.FullName}.{name}"))
            {
                Report("newer", definition, name);
            }
            if (type.IsGenericType)
            {
                CheckTypes(type.GetGenericArguments());
            }
        }

        private bool IsListed(Type definition)
        {
            return allowed.ContainsKey(definition.FullName) || IsPartOfListed(definition) || IsDelegate(definition);
        }

        private bool IsMemberListed(Type definition, string name)
        {
            if (IsDelegate(definition))
            {
                // A lambda becomes a delegate without being asked to; calling one takes the delegate's own type.
                return name == ".ctor";
            }
            if (excepted.TryGetValue(definition.FullName, out var exceptions) && exceptions.Contains(name))
            {
                return false;
            }
            if (!allowed.TryGetValue(definition.FullName, out var members) || members == null)
            {
                return true;
            }
            return members.Contains(name) || name.StartsWith("op_", StringComparison.Ordinal);
        }

        private static bool IsDelegate(Type definition) => typeof(Delegate).IsAssignableFrom(definition.BaseType);

        /// foreach over a List or a Dictionary uses their nested enumerator and collection types.
        private bool IsPartOfListed(Type definition)
        {
            return definition.DeclaringType != null
                && new[] { "Enumerator", "KeyCollection", "ValueCollection" }.Contains(definition.Name)
                && IsListed(Definition(definition.DeclaringType));
        }

        /// StringReader.ReadToEnd may be compiled as a call of TextReader.ReadToEnd.
        private bool IsInheritedByListed(Type definition, MemberInfo member)
        {
            if (member is ConstructorInfo || (member is MethodInfo method && method.IsStatic))
            {
                return false;
            }
            return allowed.Where(item => item.Value == null)
                .Select(item => Find(item.Key))
                .Any(type => type != null && type.IsSubclassOf(definition));
        }

        private static Type Find(string name)
        {
            return AppDomain.CurrentDomain.GetAssemblies().Select(item => item.GetType(name)).FirstOrDefault(item => item != null);
        }

        private void CheckFramework(MethodBase method, bool isLastArgumentGiven)
        {
            var definition = Definition(method.DeclaringType);
            var open = definition.IsGenericType || method.IsGenericMethod
                ? definition.Module.ResolveMethod(method.MetadataToken)
                : method;
            var signature = Signature(definition, open);
            if (signature == SplitByCharacter && !isLastArgumentGiven)
            {
                // Split(',') is Split(params char[]) there; here the compiler takes the newer overload and adds None.
                return;
            }
            if (newerThanFramework.Contains(signature) || open.GetParameters().Any(item => IsSpan(item.ParameterType)))
            {
                Report("newer", definition, signature);
            }
        }

        private static bool IsSpan(Type type)
        {
            return new[] { "System.Span`1", "System.ReadOnlySpan`1", "System.Memory`1", "System.ReadOnlyMemory`1" }
                .Contains(Definition(type).FullName);
        }

        private static string Signature(Type definition, MethodBase method)
        {
            var parameters = string.Join(",", method.GetParameters().Select(item => item.ParameterType.Name));
            return $"{definition.FullName}.{method.Name}({parameters})";
        }

        private void Report(string kind, Type type, string member)
        {
            if (reported.Add($"{expression} {kind} {type.FullName} {member}"))
            {
                findings.Add(new JObject
                {
                    ["expression"] = expression,
                    ["kind"] = kind,
                    ["type"] = type.FullName,
                    ["member"] = member,
                });
            }
        }
    }
}
