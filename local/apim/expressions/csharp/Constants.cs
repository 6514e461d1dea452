using System;
using System.Collections.Generic;
using System.Linq;
using System.Reflection;
using System.Security.Cryptography.X509Certificates;
using System.Xml.Linq;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// Constants leave no trace of their type in compiled code: DayOfWeek.Monday is the number 1 there. So the types that
    /// have constants and are not allowed are looked for by name, in the source.
    internal static class Constants
    {
        /// {full name of a type: [the constants of it that are allowed], ...}
        public static JObject OfOtherTypes(JObject list)
        {
            var allowed = (JObject)list["types"];
            var found = new JObject();
            foreach (var type in ReferencedAssemblies().SelectMany(item => item.GetExportedTypes()).Where(HasConstants))
            {
                var members = allowed[type.FullName];
                if (members == null || members is JArray)
                {
                    found[type.FullName.Replace('+', '.')] = members ?? new JArray();
                }
            }
            return found;
        }

        private static IEnumerable<Assembly> ReferencedAssemblies()
        {
            return new[]
            {
                typeof(object), typeof(Uri), typeof(Enumerable), typeof(System.Xml.XmlNodeType), typeof(XElement),
                typeof(X509Certificate2), typeof(JsonConvert),
            }.Select(type => type.Assembly).Distinct();
        }

        private static bool HasConstants(Type type)
        {
            return type.GetFields(BindingFlags.Public | BindingFlags.Static).Any(field => field.IsLiteral);
        }
    }
}
